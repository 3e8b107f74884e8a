// Package train sends trains of packets from network namespaces whose interface is only just being made, and answers them, in a process of its own.
//
// In goes the end that answers, and trains; out comes of each when its first answer came, and in the end when each of its packets, and each answer, was sent. A
// train has a packet every interval from the moment on at which the kernel takes them. Times are nanoseconds of CLOCK_MONOTONIC, which is the same in all processes.
package train

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits.
const (
	MaxTrains   = 256
	MinInterval = 100 * time.Microsecond
	// MaxPackets is where a train ends by itself.
	MaxPackets = 100_000
)

// An End answers.
type End struct {
	Netns string         `json:"netns"` // a file that setns(2) takes
	At    netip.AddrPort `json:"at"`
}

// A Train is packets of UDP from a namespace to the end that answers.
type Train struct {
	ID       uint32         `json:"id"` // no other train has it
	Netns    string         `json:"netns"`
	Device   string         `json:"device"` // in there, which need not exist yet
	From     netip.AddrPort `json:"from"`   // likewise
	Interval time.Duration  `json:"interval_ns"`
}

// A Report is what has become of a train.
type Report struct {
	// Sent is when the kernel took each packet, Answers when each answer was sent, both ascending.
	Sent    []int64 `json:"sent"`
	Answers []int64 `json:"answers"`
	// First is the first packet that was answered, from 1, and Answered when its answer came; 0: none was.
	First    int   `json:"first"`
	Answered int64 `json:"answered"`
}

// Check returns why there can be no such train.
func (t Train) Check(to netip.AddrPort) error {
	switch {
	case !filepath.IsAbs(t.Netns):
		return fmt.Errorf("train %d: network namespace %q is no absolute path", t.ID, t.Netns)
	case t.Device == "" || strings.ContainsAny(t.Device, "/\x00") || t.Device == "." || t.Device == "..":
		return fmt.Errorf("train %d: %q is no device", t.ID, t.Device)
	case !t.From.IsValid() || t.From.Port() == 0 || t.From.Addr().Is4() != to.Addr().Is4():
		return fmt.Errorf("train %d: no packets go from %v to %v", t.ID, t.From, to)
	case t.Interval < MinInterval || t.Interval > time.Second:
		return fmt.Errorf("train %d: interval %v is not from %v to %v", t.ID, t.Interval, MinInterval, time.Second)
	}
	return nil
}

// Now is the clock of all times.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("train: CLOCK_MONOTONIC: " + err.Error()) // every kernel has it
	}
	return ts.Nano()
}

// size is that of a packet, in octets: a small request. A packet begins with a number that only this process knows, the train's, and its own, from 1.
const size = 64

type packet struct {
	nonce     uint64
	id        uint32
	number    uint32
	isRequest bool
}

func (p packet) put(b []byte) {
	clear(b)
	binary.BigEndian.PutUint64(b, p.nonce)
	binary.BigEndian.PutUint32(b[8:], p.id)
	binary.BigEndian.PutUint32(b[12:], p.number)
	if p.isRequest {
		b[16] = 1
	}
}

func parse(b []byte) (p packet, ok bool) {
	if len(b) != size {
		return p, false
	}
	return packet{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]), b[16] == 1}, true
}
