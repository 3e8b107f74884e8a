package pinger

import "encoding/binary"

// A message is what goes from port to port. All numbers are big endian:
//
//	octets
//	0-3    "opng"
//	4      version, 1
//	5      kind
//	6-7    length of the whole message, which is that of the datagram
//	8-15   nonce, of the sender: its mark, which is new when its process is, and a number of each pair, both random
//	16-23  number of the request, of the sender
//	24-31  token: of who answers, one for each address that it answers. Of an answer: for how many nanoseconds the request has waited there
//	32-    filled up with zeros
//
// What is of another version is not answered. Later versions keep the first eight octets.
type message struct {
	kind  byte
	nonce uint64
	seq   uint64
	token uint64
}

// Kinds of messages. Only requests are ever answered, so nothing that answers can be made to talk to another.
const (
	request   = 1 + iota
	challenge // the answer to a request without the token; it has the token
	answer    // the answer to a request with the token, in place of which it has the time that the request has waited
)

const (
	magic   = "opng"
	version = 1
	nonceAt = 8
	// MinSize is what a message has before it is filled up.
	MinSize = 32
	// MaxSize fits into the least MTU of IPv6, so that nothing is fragmented.
	MaxSize = 1280 - 40 - 8
)

// put writes m into b, whose length is the message's.
func (m message) put(b []byte) {
	copy(b, magic)
	b[4], b[5] = version, m.kind
	binary.BigEndian.PutUint16(b[6:], uint16(len(b)))
	binary.BigEndian.PutUint64(b[nonceAt:], m.nonce)
	binary.BigEndian.PutUint64(b[16:], m.seq)
	binary.BigEndian.PutUint64(b[24:], m.token)
	clear(b[MinSize:])
}

// parse reads a datagram. What is longer or shorter than it says, or of another version, is none.
func parse(b []byte) (m message, ok bool) {
	if len(b) < MinSize || string(b[:4]) != magic || b[4] != version || int(binary.BigEndian.Uint16(b[6:])) != len(b) {
		return message{}, false
	}
	m = message{
		kind: b[5], nonce: binary.BigEndian.Uint64(b[nonceAt:]), seq: binary.BigEndian.Uint64(b[16:]), token: binary.BigEndian.Uint64(b[24:]),
	}
	return m, request <= m.kind && m.kind <= answer
}

// A book is whom a port answers, and how much each of them may ask. It is what decides about answers, without the sockets. The caller
// brings the time, in nanoseconds, which does not go back.
type book struct {
	guests map[[16]byte]*guest
	burst  int64 // answers at once
	every  int64 // nanoseconds for one more
}

// A guest is an address that is answered.
type guest struct {
	token  uint64
	credit int64 // nanoseconds
	seen   int64 // when credit was right
	told   int64 // when it was last told the token
}

// challengeEvery is how long there is no second challenge for an address, in nanoseconds: those are sent to who has not yet shown that it receives
// what is sent to its address.
const challengeEvery = int64(1e9)

// reply decides what a datagram from an address is answered with; false: with nothing. It writes the answer into out, which then has the
// length of the datagram; waited is for how long the datagram has.
func (k *book) reply(from [16]byte, datagram, out []byte, now, waited int64) bool {
	g := k.guests[from]
	if g == nil {
		return false
	}
	m, ok := parse(datagram)
	if !ok || m.kind != request {
		return false
	}
	if m.token != g.token {
		if g.told != 0 && now-g.told < challengeEvery {
			return false
		}
		g.told = now
		message{kind: challenge, nonce: m.nonce, seq: m.seq, token: g.token}.put(out[:len(datagram)])
		return true
	}
	limit := k.burst * k.every
	g.credit = min(g.credit+now-g.seen, limit)
	g.seen = now
	if g.credit < k.every {
		return false
	}
	g.credit -= k.every
	message{kind: answer, nonce: m.nonce, seq: m.seq, token: uint64(max(waited, 0))}.put(out[:len(datagram)])
	return true
}
