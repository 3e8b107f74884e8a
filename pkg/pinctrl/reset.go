package pinctrl

import (
	"fmt"
	"hash/crc32"
)

// resetHops is the TTL of resets and aborts, as OVN's.
const resetHops = 63

// TCP flags.
const (
	tcpFIN = 1 << 0
	tcpSYN = 1 << 1
	tcpRST = 1 << 2
	tcpACK = 1 << 4
)

// tcpReset returns the segment that refuses f: RFC 9293, section 3.10.7.1. back says that the nested actions do not swap the
// addresses; the ports are swapped in any case.
//
// OVN's pinctrl answers every segment as if it were a SYN, with sequence number 0, which ends no connection that is
// established: the number is not in the window.
func (f *frame) tcpReset(back bool) ([]byte, error) {
	if err := f.mayAnswer(false); err != nil {
		return nil, err
	}
	in := f.transport()
	if f.proto != protoTCP || len(in) < tcpHeader {
		return nil, fmt.Errorf("IP protocol %d of %d bytes: no TCP segment", f.proto, len(in))
	}
	data, flags := int(in[12]>>4)*4, in[13]
	if data < tcpHeader || data > len(in) {
		return nil, fmt.Errorf("TCP segment of %d bytes: header of %d bytes", len(in), data)
	}
	if flags&tcpRST != 0 {
		return nil, fmt.Errorf("reset from %v to %v: %w", f.src, f.dst, ErrSilence)
	}
	out := make([]byte, tcpHeader)
	copy(out[0:2], in[2:4])
	copy(out[2:4], in[0:2])
	out[12], out[13] = tcpHeader/4<<4, tcpRST
	if flags&tcpACK != 0 {
		copy(out[4:8], in[8:12]) // the sequence number that is expected
	} else {
		length := uint32(len(in) - data)
		if flags&tcpSYN != 0 {
			length++
		}
		if flags&tcpFIN != 0 {
			length++
		}
		out[13] |= tcpACK
		be.PutUint32(out[8:], be.Uint32(in[4:])+length)
	}
	be.PutUint16(out[16:], f.checksum(protoTCP, out))
	return f.reply(protoTCP, resetHops, out, back), nil
}

// SCTP chunks: RFC 9260, section 3.2.
const (
	chunkInit             = 1
	chunkAbort            = 6
	chunkShutdownComplete = 14

	abortReflected = 1 // the flag T: the tag is that of the packet that is answered
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sctpAbort returns the packet that aborts the association of f: RFC 9260, section 8.4. back is as for tcpReset.
func (f *frame) sctpAbort(back bool) ([]byte, error) {
	if err := f.mayAnswer(false); err != nil {
		return nil, err
	}
	in := f.transport()
	if f.proto != protoSCTP || len(in) < sctpHeader+sctpChunk {
		return nil, fmt.Errorf("IP protocol %d of %d bytes: no SCTP packet with a chunk", f.proto, len(in))
	}
	tag, flags := in[4:8], byte(abortReflected)
	switch chunk := in[sctpHeader:]; chunk[0] {
	case chunkAbort, chunkShutdownComplete:
		return nil, fmt.Errorf("SCTP chunk %d from %v to %v: %w", chunk[0], f.src, f.dst, ErrSilence)
	case chunkInit:
		if len(chunk) < sctpChunk+4 {
			return nil, fmt.Errorf("SCTP INIT of %d bytes", len(chunk))
		}
		if allZero(tag) {
			tag, flags = chunk[sctpChunk:][:4], 0 // the tag that the sender wants to hear
		}
	}
	out := make([]byte, sctpHeader+sctpChunk)
	copy(out[0:2], in[2:4])
	copy(out[2:4], in[0:2])
	copy(out[4:8], tag)
	out[12], out[13], out[15] = chunkAbort, flags, sctpChunk
	sum := crc32.Checksum(out, castagnoli)
	out[8], out[9], out[10], out[11] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24) // RFC 9260, appendix A
	return f.reply(protoSCTP, resetHops, out, back), nil
}

// reject returns what says to the sender of f that it is not wanted, in the way of its protocol, with the addresses swapped.
func (f *frame) reject() ([]byte, error) {
	switch {
	case !f.isIP():
		return nil, fmt.Errorf("EtherType %#04x", f.etherType)
	case f.proto == protoTCP:
		return f.tcpReset(true)
	case f.proto == protoSCTP:
		return f.sctpAbort(true)
	}
	return f.icmpError(true, 0, true)
}
