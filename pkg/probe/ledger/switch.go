package ledger

import (
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// SwitchOf finds when filters began to forward the packets of a direction that were sent one after the other: seen is what they had counted after each, sent when
// it was sent, and a is their account in the end. Software is seen at once. Hardware tells later, so what it has forwarded in the end are
// the last ones.
func SwitchOf(a *result.Account, seen []Counts, sent []int64) (s result.Switch) {
	first := 0 // that software forwarded
	for i := range seen {
		if seen[i].Forwarded.Software > 0 {
			first = i + 1
			break
		}
	}
	n := int(min(a.Hardware, int64(len(sent))))
	if n > 0 {
		s.Hardware = len(sent) - n + 1
		s.HardwareAfter = time.Duration(sent[s.Hardware-1])
	}
	s.Packet = first
	if first == 0 || s.Hardware > 0 && s.Hardware < first {
		s.Packet = s.Hardware
	}
	if s.Packet > 0 {
		s.After = time.Duration(sent[s.Packet-1])
	}
	return s
}
