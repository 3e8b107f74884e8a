package offloadnic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/integration/offload"
	"github.com/offloadd/offloadd/integration/testnic"
)

// nic is the NIC of all tests. Of its VFs one is left to nobody.
var nic = testnic.New()

const vfs = 5

// theRig is that of all tests: a guest needs long to start one.
var theRig struct {
	*offload.Rig
	once sync.Once
	err  error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if theRig.Rig != nil {
		if err := errors.Join(theRig.Close(), nic.Close()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// rig returns the rig. Tests leave it and the NIC as they found them.
func rig(t *testing.T) *offload.Rig {
	t.Helper()
	if why := nic.Absent(); why != "" {
		t.Skip(why)
	}
	theRig.once.Do(func() { theRig.Rig, theRig.err = start(labtest.Offloadd(t)) })
	if theRig.err != nil {
		t.Fatal(theRig.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of lab %s:\n%s\n%s", theRig.Name, theRig.Tails(30), theRig.State(context.Background()))
		}
	})
	return theRig.Rig
}

func start(offloadd string) (*offload.Rig, error) {
	ctx := context.Background()
	if err := nic.Open(ctx, vfs); err != nil {
		return nil, err
	}
	o := offload.Options{OffloaddPath: offloadd, NIC: true, Plug: plugger()}
	if nic.Real() { // it sends what goes through a tunnel by itself only if that leaves by its uplink
		o.Uplink, o.Wire = nic.Uplink(), nic.Wire()
	}
	r, err := offload.Start(ctx, o)
	if err != nil {
		return nil, errors.Join(err, nic.Close())
	}
	return r, nil
}

// faulty skips a test that makes the NIC do what only the simulated one can be told to.
func faulty(t *testing.T) {
	t.Helper()
	if nic.Real() {
		t.Skip("it takes faults that only the simulated NIC makes")
	}
}

// plugger returns a function that makes pods, each on the next VF: the function is the pod's eth0, the representor is in br-int.
func plugger() func(context.Context, *lab.Node, lab.PodConfig) (time.Duration, error) {
	next := 0
	return func(ctx context.Context, n *lab.Node, c lab.PodConfig) (time.Duration, error) {
		vf := next
		next++
		c.Bare, c.HostIface = true, nic.VFRepresentor(vf)
		p, err := n.AddPod(ctx, c)
		if err != nil {
			return 0, err
		}
		netdev, err := nic.VFNetdev(vf)
		if err != nil {
			return 0, err
		}
		script := fmt.Sprintf("link set %s netns %s\nlink set %s up\n", netdev, p.Netns(), c.HostIface)
		if err := ip(script); err != nil {
			return 0, err
		}
		script = fmt.Sprintf("link set %s name eth0 address %s mtu 1400 up\n", netdev, c.MAC)
		for _, a := range c.IPs {
			script += fmt.Sprintf("addr add %s dev eth0\n", a)
		}
		for _, g := range c.Gateways {
			script += fmt.Sprintf("route add default via inet%s %s\n", map[bool]string{true: "6"}[g.Is6()], g)
		}
		if err := ip(script, "-n", p.Netns()); err != nil {
			return 0, err
		}
		return 0, p.Plug(ctx)
	}
}

// ip runs commands of ip(8), one a line.
func ip(script string, args ...string) error {
	for line := range strings.Lines(script) {
		argv := slices.Concat([]string{"ip"}, args, strings.Fields(line))
		if _, err := run(argv...); err != nil {
			return err
		}
	}
	return nil
}

func run(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return string(out), nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(lab.Patient(15 * time.Second))
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ctl runs offloadctl on n1, and fails the test unless it prints all of want.
func ctl(t *testing.T, r *offload.Rig, want []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(labtest.Offloadd(t)), "offloadctl"), append(args, "--timeout=2m")...)
	cmd.Env = append(os.Environ(), "OFFLOADCTL_SOCKET="+filepath.Join(r.Nodes[0].Dir, "offloadd.sock"))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("offloadctl %s\n%.6000s", strings.Join(args, " "), out)
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(string(out)) {
			t.Errorf("offloadctl %v does not say %q", args, w)
		}
	}
	return string(out)
}
