package probe

import (
	"os"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// Programs' time is their path's, without the share of the warm-up, and no noise where there is no CPU but the two.
func TestAccount(t *testing.T) {
	before := forwarding{"tun": {time.Second, 0}}
	after := forwarding{"tun": {1100 * time.Millisecond, 200 * time.Millisecond}}
	for _, onlyTwo := range []bool{true, false} {
		tun := &result.Session{Elapsed: 600 * time.Millisecond, Noise: result.Noise{Others: 350 * time.Millisecond}}
		metal := &result.Session{Elapsed: 200 * time.Millisecond, Noise: tun.Noise}
		account(map[string]*result.Session{"tun": tun, "metal": metal}, before, after, 200*time.Millisecond, onlyTwo)
		if a, b := tun.CPU[0].Forwarding, tun.CPU[1].Forwarding; a != 80*time.Millisecond || b != 160*time.Millisecond {
			t.Errorf("tun: %v and %v, want 80 and 160 ms", a, b)
		}
		if metal.CPU != [2]result.CPU{} {
			t.Errorf("metal: %+v", metal.CPU)
		}
		want := 350 * time.Millisecond
		if onlyTwo {
			want = 50 * time.Millisecond
		}
		if tun.Noise.Others != want || metal.Noise.Others != want {
			t.Errorf("others %v and %v, want %v", tun.Noise.Others, metal.Noise.Others, want)
		}
	}
	account(map[string]*result.Session{"tun": {}}, before, after, time.Second, true) // nothing was measured
}

// A process that runs is seen to.
func TestRan(t *testing.T) {
	before := ran("/proc/self")
	for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
	}
	if used := ran("/proc/self") - before; used <= 0 || used > time.Minute {
		t.Errorf("20 ms of turning: %v", used)
	}
	if n := ran("/proc/none"); n != 0 {
		t.Errorf("a process that is not there: %v", n)
	}
	if id := identify("/proc/none"); id != [2]uint64{} || identify("/proc/self/ns/net") == id {
		t.Error("namespaces are not told apart")
	}
}

// The programs of a path are found by its namespaces, on both sides.
func TestReadForwarding(t *testing.T) {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("there is no /dev/net/tun")
	}
	built, missing, err := path.Build(t.Context(), path.Options{Kinds: []path.Want{{Kind: "metal"}, {Kind: "tun-udp"}}, Wait: true})
	if err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	f := readForwarding(built.Paths, kindsByName())
	if sides := f["tun-udp"]; len(f) != 1 || sides[0] <= 0 || sides[1] <= 0 {
		t.Errorf("%v", f)
	}
	if err := built.Close(); err != nil {
		t.Error(err)
	}
}
