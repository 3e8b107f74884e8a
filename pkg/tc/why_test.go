package tc

import (
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// What a driver says of a filter that the kernel takes is heard, and nothing is left of the question. lo has no other port that could be
// asked, so that the block is.
func TestWhyNot(t *testing.T) {
	const words = "simnic: Unsupported key"
	f := Filter{
		Chain: 7, Pref: 100, Handle: 3, Protocol: ProtocolIPv4, Indev: "lo", Match: ir.Match{}.Eq(ir.IPProto, 6),
		Actions: []Action{Drop{}}, Flags: NotInHW, Cookie: Cookie{1},
	}
	for _, c := range []struct {
		name  string
		errno unix.Errno
		says  string
		want  string
	}{
		{"taken", 0, "", ""},
		{"not taken", 0, words, words},
		{"refused", unix.EOPNOTSUPP, words, words},
		{"refused without words", unix.EOPNOTSUPP, "", "operation not supported"},
	} {
		k := tctest.NewKernel(t)
		k.Refuse = func(m netlink.Message) (unix.Errno, string) {
			if m.Header.Type != rtmNewTFilter {
				return 0, ""
			}
			in, err := Decode(m.Data)
			if err != nil || in.Target != (Target{Block: 5}) || in.Filter.Flags != Verbose || in.Filter.Indev != "" || in.Filter.Chain == f.Chain {
				t.Errorf("%s: asked about %+v, %v", c.name, in, err)
			}
			return c.errno, c.says
		}
		conn := NewConn(k.Dial())
		says, err := conn.WhyNot(t.Context(), 5, "lo", &f)
		if err != nil || says != c.want {
			t.Errorf("%s: WhyNot = %q, %v, want %q", c.name, says, err, c.want)
		}
		err = conn.Dump(t.Context(), Target{Block: 5}, DumpOptions{}, func(in *Installed) error {
			t.Errorf("%s: left is %s", c.name, in.Filter.String())
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
