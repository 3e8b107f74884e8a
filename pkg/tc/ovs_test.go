package tc

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
)

// Filters of Open vSwitch 3.1 as Linux 6.1 has them, and how they are told: what tc(8) takes, what that leaves out, the cookie, and what
// they have counted.
func TestOpenVSwitch(t *testing.T) {
	if !littleEndian {
		t.Skip("the bytes of integers are in the order of a little-endian machine")
	}
	golden.Run(t, "testdata/ovs.txt", func(input string) string {
		b, err := hex.DecodeString(strings.ReplaceAll(input, "\n", ""))
		if err != nil {
			return err.Error()
		}
		in, err := Decode(b)
		if err != nil {
			return err.Error()
		}
		packets, bytes := in.Packets()
		out := fmt.Sprintf("%s\n%v, %d packets, %d bytes, cookie %s", in.Filter.Args(nil), in.Target, packets, bytes, in.Filter.Cookie)
		for _, f := range in.Foreign {
			out += "\nforeign: " + f
		}
		return out
	})
}
