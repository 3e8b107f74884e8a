package openflow

import (
	"os"
	"sync"
	"testing"

	"github.com/offloadd/offloadd/pkg/openflow/openflowtest"
)

// testBridge is br0 of a switch that this package's tests share.
type testBridge struct{ *openflowtest.Switch }

var shared struct {
	sync.Once
	*openflowtest.Switch
	err error
}

// newBridge returns the shared bridge, without flows and groups.
func newBridge(t testing.TB) *testBridge {
	t.Helper()
	shared.Do(func() {
		if shared.Switch, shared.err = openflowtest.Open(); shared.err == nil {
			shared.err = shared.AddBridge("br0")
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	shared.OFctl(t, "del-flows", "br0")
	shared.OFctl(t, "del-groups", "br0")
	return &testBridge{shared.Switch}
}

func (b *testBridge) ofctl(t testing.TB, args ...string) string {
	t.Helper()
	return b.OFctl(t, args...)
}

// dial connects to the bridge until the test ends.
func (b *testBridge) dial(t testing.TB) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), b.Socket("br0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.Switch != nil {
		shared.Close()
	}
	os.Exit(code)
}
