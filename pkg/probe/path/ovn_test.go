package path

import "testing"

// What was counted says which way packets took, and another than the kind is called after is refused.
func TestWay(t *testing.T) {
	const n = proofPackets
	for _, c := range []struct {
		name            string
		count           count
		filters, tunnel bool
		ok              bool
	}{
		{"Open vSwitch, each looked up twice", count{datapath: 4 * n}, false, false, true},
		{"and through the tunnel", count{datapath: 4 * n, tunnel: n}, false, true, true},
		{"all by filters", count{filters: 2 * n, tunnel: n}, true, true, true},
		{"the first two by Open vSwitch", count{filters: 2*n - 2, datapath: 8}, true, false, true},
		{"none anywhere", count{}, false, false, false},
		{"past the tunnel", count{datapath: 4 * n}, false, true, false},
		{"filters take some, and should not", count{datapath: 2 * n, filters: 1}, false, false, false},
		{"filters take half", count{datapath: 2 * n, filters: n}, true, false, false},
		{"filters take none", count{datapath: 4 * n, tunnel: n}, true, true, false},
		{"filters count all, and Open vSwitch sees them too", count{datapath: 2 * n, filters: 2 * n}, true, false, false},
	} {
		way, err := c.count.way(c.filters, c.tunnel)
		if (err == nil) != c.ok || (way != "") != c.ok {
			t.Errorf("%s: %q, %v; want ok: %v", c.name, way, err, c.ok)
		}
	}
}
