package offload

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/tc"
)

// offloadctl returns the path of the program: beside the daemon, or built for the test.
func offloadctl(t *testing.T) string {
	t.Helper()
	beside := filepath.Join(filepath.Dir(labtest.Offloadd(t)), "offloadctl")
	if _, err := os.Stat(beside); err == nil {
		return beside
	}
	if os.Getenv("OFFLOADD_VM") != "" {
		t.Fatalf("offloadctl is not built in a guest: there is no %s", beside)
	}
	path := filepath.Join(t.TempDir(), "offloadctl")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/offloadd/offloadd/cmd/offloadctl").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// A ctl asks the daemon of a node.
type ctl struct {
	t    *testing.T
	path string
	node *lab.Node
}

// run returns what offloadctl prints, and its exit code.
func (c ctl) run(args ...string) (string, int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.path, args...)
	cmd.Env = append(os.Environ(), "OFFLOADCTL_SOCKET="+filepath.Join(c.node.Dir, "offloadd.sock"))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// says runs a command that must end with a code and print all of want.
func (c ctl) says(code int, want []string, args ...string) string {
	c.t.Helper()
	out, got := c.run(args...)
	c.t.Logf("offloadctl %s\n%.4000s", strings.Join(args, " "), out)
	if got != code {
		c.t.Errorf("offloadctl %v: exit code %d, want %d", args, got, code)
	}
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(out) {
			c.t.Errorf("offloadctl %v does not say %q", args, w)
		}
	}
	return out
}

// What offloadctl tells of the filters is what the kernel has, and what it tells of a packet is what becomes of packets.
func TestOffloadctl(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	n1 := r.Nodes[0]
	c := ctl{t, offloadctl(t), n1}
	db1, db3 := r.Pod("db1"), r.Pod("db3")
	_, err := Transfer(t.Context(), db1, db3, false, 5432, 1<<18)
	check(t, err)

	// Ends of chains that nothing leads to are left for a second.
	deadline := time.Now().Add(lab.Patient(patience))
	for {
		if out, code := c.run("diff"); code == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("offloadctl diff: exit code %d\n%s", code, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	out := c.says(0, []string{`entry +installed .*indev ` + db1.Iface()}, "flows", "--tc", "--port", "db1")
	if strings.Contains(out, "indev "+db3.Iface()) {
		t.Error("among the filters that packets of db1 meet are those of packets of db3")
	}
	c.says(0, []string{`output ` + db3.Iface(), `n_packets=[1-9]`, `ingress: uuid=`}, "chains", "db1")
	c.says(0, []string{`Forwarded: +[1-9]\d* packets`, `new-connection: \d+ packets`, `fix: `}, "explain", "db1")

	packet := func(port uint16) string {
		return fmt.Sprintf("eth.src == %s && eth.dst == %s && ip4.src == %v && ip4.dst == %v && tcp.src == 40000 && tcp.dst == %d",
			db1.MAC, db3.MAC, db1.Addr(false), db3.Addr(false), port)
	}
	c.says(0, []string{`tc +decides +sent out of ` + db3.Iface(), `ovs +not reached`}, "explain", "db1", packet(5432))
	c.says(0, []string{`tc +passes +left to Open vSwitch`, `ovs +decides +delivered to db3`, `(?m)^new-connection$`},
		"explain", "db1", packet(5432), "--ct", "trk,new", "--ct", "trk,new")
	web1, db2 := r.Pod("web1"), r.Pod("db2")
	routed := fmt.Sprintf("eth.src == %s && eth.dst == 50:54:00:00:01:ff && ip4.src == %v && ip4.dst == %v && udp.src == 40000 && udp.dst == %d",
		web1.MAC, web1.Addr(false), db2.Addr(false), UDPPort)
	c.says(0, []string{`tc +decides +sent out of genev_sys_6081 to .*, VNI \d+`, `munge ip ttl add 255`}, "explain", "web1", routed)
	c.says(1, []string{`tc +passes`, `ovs +decides +delivered nowhere`, `(?m)^ttl$`}, "explain", "web1", routed+" && ip.ttl == 1")
	c.says(2, []string{`INVALID_FIELD`}, "explain", "db1", "tcp.dst = 80")
	c.says(2, []string{`contradictory`}, "explain", "db1", `inport == "db3" && ip4`)
	c.says(3, []string{`no port or device "db2"`}, "chains", "db2")

	// What filters have counted is found with logical flows, too, with flows and with ports.
	c.says(0, []string{`filters: n_packets=[1-9]`}, "flows", "--datapath", "db")
	c.says(0, []string{`(?m)^0 +100 +installed +\d+ +\d+ +[1-9]\d* +[1-9]\d* .*in_port`}, "get", "flows", "--table", "0")
	forwarded := ` +[1-9]\d* +[1-9]\d* +[1-9]\d* +[1-9]\d*` // from and to it
	c.says(0, []string{`db1 +` + db1.Iface() + forwarded, `db3 +` + db3.Iface() + forwarded}, "get", "counters")
	c.says(0, []string{`Offload: +[1-9]\d* filters on \d+ devices`, `offload\.filter +serving`}, "status")

	// A filter of somebody else is told, and left alone.
	foreign := tc.Filter{Chain: 12345, Pref: 7, Handle: 1, Protocol: tc.ProtocolIPv4, Actions: []tc.Action{tc.Pass{}}}
	change := func(op tc.Op) {
		t.Helper()
		conn, err := tc.Dial(tc.DialOptions{NetNS: "/run/netns/" + n1.Netns()})
		check(t, err)
		defer conn.Close()
		refused, err := conn.Apply(t.Context(), tc.Target{Block: apply.Block}, []tc.Op{op})
		check(t, err)
		for i := range refused {
			t.Fatal(&refused[i])
		}
	}
	change(tc.AddOp(&foreign))
	c.says(0, []string{`(?m)^\? chain 12345 pref 7 .*action pass`}, "diff")
	change(tc.DeleteOp(foreign.Key()))
}
