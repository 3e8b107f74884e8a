package simnic_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/simnic"
)

// load inserts the module, with device 0, for the duration of a test, which fails on what the kernel complains about in the
// meantime, or if the module cannot be removed.
func load(t *testing.T) {
	t.Helper()
	if why := simnic.Absent(); why != "" {
		t.Skip(why)
	}
	run(t, "dmesg", "-C")
	before := netdevs(t)
	check(t, simnic.Load(os.Getenv(simnic.Module), 1))
	t.Cleanup(func() {
		if err := simnic.Unload(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat("/sys/bus/simnic"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("/sys/bus/simnic after the module was removed: %v", err)
		}
		if after := netdevs(t); !slices.Equal(after, before) {
			t.Errorf("netdevs after the module was removed: %v, want %v", after, before)
		}
		out, err := exec.Command("dmesg").CombinedOutput()
		if err != nil {
			t.Fatalf("dmesg: %v: %s", err, out)
		}
		if lines := complaints(string(out)); len(lines) > 0 {
			t.Errorf("the kernel says:\n%s\nall of it:\n%s", strings.Join(lines, "\n"), out)
		}
	})
}

// netdevs are the names of those of the guest's own namespace.
func netdevs(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

var complaint = regexp.MustCompile(`WARNING:|BUG:|Oops|Call Trace|general protection|unregister_netdevice: waiting|refcount_t|leak|hung|blocked for more`)

// complaints are the lines of the kernel's log that say that something is wrong with it.
func complaints(log string) []string {
	var lines []string
	for line := range strings.Lines(log) {
		if complaint.MatchString(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestComplaints(t *testing.T) {
	const log = `[    1.0] simnic: loading out-of-tree module taints kernel.
[    2.0] WARNING: CPU: 0 PID: 7 at net/devlink/leftover.c:1 devlink_free+0x1/0x2
[    3.0] unregister_netdevice: waiting for sn0v0 to become free. Usage count = 2
`
	if got := complaints(log); len(got) != 2 {
		t.Errorf("complaints = %q, want two", got)
	}
}

// run runs a program and returns what it wrote.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := try(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(argv ...string) (string, error) {
	var out, both bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &both
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", strings.Join(argv, " "), err, out.String(), both.String())
	}
	return out.String() + both.String(), nil
}

// words splits a command line; no argument of ours has a space.
func words(format string, args ...any) []string { return strings.Fields(fmt.Sprintf(format, args...)) }

// wantError fails the test unless the command fails and says so.
func wantError(t *testing.T, says string, argv ...string) {
	t.Helper()
	if out, err := try(argv...); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%s = %q, %v, want an error that says %q", strings.Join(argv, " "), out, err, says)
	}
}

// wantWords fails the test unless all words are in the text.
func wantWords(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// eventually waits until f returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func switchdev(t *testing.T, d simnic.Device) {
	t.Helper()
	run(t, words("devlink dev eswitch set %s mode switchdev", d.Handle())...)
}

// sf makes an active SF that has its netdev. The port indexes of SFs count from 32768.
func sf(t *testing.T, d simnic.Device, sfnum, index int) {
	t.Helper()
	run(t, words("devlink port add %s flavour pcisf pfnum 0 sfnum %d", d.Handle(), sfnum)...)
	run(t, words("devlink port function set %s/%d state active", d.Handle(), index)...)
	eventually(t, func() error { _, err := d.SFNetdev(sfnum); return err })
}

// space makes a network namespace with the netdev in it, up and with an address, for the duration of the test.
func space(t *testing.T, netns, netdev, addr string) {
	t.Helper()
	run(t, words("ip netns add %s", netns)...)
	t.Cleanup(func() {
		if out, err := try("ip", "netns", "pids", netns); err != nil || out != "" {
			return // the test has removed it
		}
		run(t, words("ip netns del %s", netns)...)
	})
	run(t, words("ip link set %s netns %s", netdev, netns)...)
	run(t, words("ip -n %s link set %s name eth0 up", netns, netdev)...)
	run(t, words("ip -n %s addr add %s dev eth0", netns, addr)...)
}

// redirect sends what comes in from one representor out of another, both ways.
func redirect(t *testing.T, a, b string, options string) {
	t.Helper()
	for _, ends := range [][2]string{{a, b}, {b, a}} {
		run(t, words("ip link set %s up", ends[0])...)
		run(t, words("tc qdisc add dev %s clsact", ends[0])...)
		run(t, words("tc filter add dev %s ingress protocol all pref 1 flower %s action mirred egress redirect dev %s", ends[0], options, ends[1])...)
	}
}

func ping(t *testing.T, netns, addr string) {
	t.Helper()
	eventually(t, func() error {
		_, err := try(words("ip netns exec %s ping -n -c 3 -i 0.2 -W 1 %s", netns, addr)...)
		return err
	})
}
