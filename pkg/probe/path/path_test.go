package path

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/netnsdir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// exclusive takes the lock for the test, so that other packages' tests have no paths meanwhile.
func exclusive(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	l, err := acquire(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := sweep(Root); err != nil {
			t.Error(err)
		}
		if err := l.release(); err != nil {
			t.Error(err)
		}
	})
	if _, err := sweep(Root); err != nil {
		t.Fatal(err)
	}
}

// Each kind carries UDP and TCP both ways, where it says, or is missing because the kernel lacks something, which its own tools say too; afterwards
// nothing is left of it.
func TestKinds(t *testing.T) {
	exclusive(t)
	wants := []Want{{Kind: "ovn-geneve", Chassis: ChassisOVNController}}
	for _, k := range Kinds() {
		wants = append(wants, Want{Kind: k.Name})
	}
	for _, w := range wants {
		t.Run(w.String(), func(t *testing.T) {
			k, _ := find(w.Kind)
			w.Name, w.Twin = k.Name, true
			before := traces(t)
			b, failed, err := build(t.Context(), []Want{w}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range failed {
				t.Logf("missing: %v", f.err)
				prove(t, k, f.err)
			}
			if len(failed) == 0 && len(b.Paths) != 2 {
				t.Errorf("%d paths, want two twins", len(b.Paths))
			}
			for i, p := range b.Paths {
				t.Logf("%s: %v", p.Name, p.Facts)
				if k.Translates != p.Translated() {
					t.Errorf("%s: translated: %v, want %v", p.Name, p.Translated(), k.Translates)
				}
				if want := []string{"", k.Name}[i]; p.Twin != want || p.Kind != k.Name {
					t.Errorf("%s: a %s, twin of %q, want a %s, twin of %q", p.Name, p.Kind, p.Twin, k.Name, want)
				}
				quiet(t, b.sites[i])
				passes(t, p.Client, p.Server, p.Target)
				if !p.Translated() {
					passes(t, p.Server, p.Client, p.Client.Addr)
				}
				takes(t, k, b.sites[i])
			}
			if len(b.Paths) == 2 && !maps.Equal(b.Paths[0].Facts, b.Paths[1].Facts) {
				t.Errorf("the twins differ: %v\n%v", b.Paths[0].Facts, b.Paths[1].Facts)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if after := traces(t); !maps.Equal(before, after) {
				t.Errorf("before: %v\nafter: %v", before, after)
			}
		})
	}
}

// quiet fails if a namespace has IPv6 addresses or unanswered neighbours, or has sent multicasts.
func quiet(t *testing.T, s *site) {
	t.Helper()
	for _, sp := range s.spaces {
		addrs, err := sp.link.AddrList(nil, netlink.FAMILY_V6)
		if err != nil || len(addrs) != 0 {
			t.Errorf("%s has IPv6 addresses: %v, %v", sp.name, addrs, err)
		}
		if n := counter(t, sp, "netstat", "IpExt:", "OutMcastPkts"); n != 0 {
			t.Errorf("%s has sent %d multicasts", sp.name, n)
		}
		neighbours, err := sp.link.NeighList(0, netlink.FAMILY_V4)
		if err != nil {
			t.Error(err)
		}
		for _, n := range neighbours {
			if n.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) != 0 {
				t.Errorf("%s does not know its neighbour %s", sp.name, n.IP)
			}
		}
	}
}

// ways is what is known of kinds' packets from outside: whether the client's node forwards them, by the counter of IP, and whether they leave it
// by a tunnel's device.
var ways = map[string]struct{ forwarded, tunnelled bool }{
	"host": {}, "metal": {}, "net-host": {}, "macvlan": {}, "ipvlan-l2": {}, "ipvlan-l3": {}, "ipvlan-l3s": {},
	"veth": {forwarded: true}, "bridge": {}, "bridge-nat": {forwarded: true}, "routed": {forwarded: true}, "routed-rules": {forwarded: true},
	"flowtable": {}, "bpf-redirect": {}, "service": {forwarded: true}, "hostgw": {forwarded: true},
	"ipip": {true, true}, "gre": {true, true}, "overlay-vxlan": {tunnelled: true}, "flannel-vxlan": {true, true}, "geneve": {true, true},
	"wireguard": {true, true}, "tun-udp": {true, true},
	"ovs": {}, "ovs-ct": {}, "ovs-vxlan": {}, "ovs-geneve": {}, "ovs-user": {},
	"ovs-tc": {}, "ovn-geneve": {}, "ovn-geneve-tc": {},
}

// takes sends datagrams and looks at where they were counted.
func takes(t *testing.T, k Kind, s *site) {
	t.Helper()
	want, ok := ways[k.Name]
	if !ok {
		t.Errorf("it is not known which way the packets of %s take", k.Name)
	}
	const n = 50
	tunnels := s.spaces[node1]
	if o := s.spaces[overlay1]; o != nil {
		tunnels = o
	}
	sent := func() uint64 {
		link, err := tunnels.link.LinkByName(tunnelDevice)
		if err != nil {
			return 0
		}
		return link.Attrs().Statistics.TxPackets
	}
	forwarded, tunnelled := forwards(t, s.spaces[node1]), sent()
	datagrams(t, s.path.Client, s.path.Server, s.path.Target, n)
	forwarded, tunnelled = forwards(t, s.spaces[node1])-forwarded, sent()-tunnelled
	// A connection that is offloaded has had two packets before; others of the system's are not here.
	const few = 4
	if want.forwarded && forwarded < 2*n || !want.forwarded && forwarded > few {
		t.Errorf("of %d datagrams there and back the client's node has forwarded %d; want forwarded: %v", n, forwarded, want.forwarded)
	}
	if want.tunnelled && tunnelled < n || !want.tunnelled && tunnelled > 0 {
		t.Errorf("of %d datagrams %d have left by the tunnel; want tunnelled: %v", n, tunnelled, want.tunnelled)
	}
	if rules := s.path.Facts["node1 rules"]; k.Name == "routed-rules" && rules != fmt.Sprint(usualRules+1) {
		t.Errorf("%q rules, want %d", rules, usualRules+1)
	}
	tracked := s.path.Facts["node1 conntrack"] != ""
	if want := slices.Contains([]string{"bridge-nat", "routed-rules", "flowtable", "service", "ovs-ct", "ovs-tc", "ovn-geneve", "ovn-geneve-tc"}, k.Name); tracked != want && (want || !trackedAnyway(t)) {
		t.Errorf("conntrack has connections on the client's node: %v, want %v", tracked, want)
	}
}

// trackedAnyway reports whether conntrack is on in a namespace where nobody has asked for it, as it is in all of them where the kernel's
// Open vSwitch is loaded: ovs_ct_limit_init of its conntrack.c does.
func trackedAnyway(t *testing.T) bool {
	t.Helper()
	s := newSite(1000, Want{Kind: "host"}, Options{Dir: Root})
	err := s.build(t.Context())
	if err := errors.Join(err, s.close()); err != nil {
		t.Fatal(err)
	}
	return s.path.Facts["node1 conntrack"] != ""
}

// forwards is how many packets a namespace has forwarded.
func forwards(t *testing.T, sp *space) uint64 {
	t.Helper()
	return counter(t, sp, "snmp", "Ip:", "ForwDatagrams")
}

// counter is one of a protocol's in a file of /proc/net of a namespace: a line of names, and a line of numbers.
func counter(t *testing.T, sp *space, file, protocol, name string) uint64 {
	t.Helper()
	var text []byte
	err := sp.do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/" + file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] != protocol {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		n, err := strconv.ParseUint(fields[slices.Index(names, name)], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatalf("no counters of %s %s", protocol, text)
	return 0
}

// datagrams sends some that have to come back.
func datagrams(t *testing.T, from, to End, target netip.Addr, n int) {
	t.Helper()
	server, client := sockets(t, from, to, target)
	defer server.Close()
	defer client.Close()
	go echoAll(server)
	for i := range n {
		if err := echo(client, byte(i), 10*time.Second); err != nil {
			t.Fatalf("datagram %d from %s to %s: %v", i, from.Addr, target, err)
		}
	}
}

// sockets opens one for UDP on each side.
func sockets(t *testing.T, from, to End, target netip.Addr) (server, client *net.UDPConn) {
	t.Helper()
	in(t, to, func() (err error) {
		server, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, 0)))
		return err
	})
	in(t, from, func() (err error) {
		client, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, server.LocalAddr().(*net.UDPAddr).AddrPort().Port())))
		return err
	})
	for _, c := range []*net.UDPConn{server, client} {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		// Nothing is fragmented, so that the MTUs have to be right.
		if err := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return server, client
}

// echoAll answers until c is closed.
func echoAll(c *net.UDPConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(b[:n], from)
	}
}

// passes sends a stream, and datagrams of all sizes up to the largest that the device takes, there and back.
func passes(t *testing.T, from, to End, target netip.Addr) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	payload := bytes.Repeat([]byte("probe "), 20000) // many segments, which offloads may merge
	var l net.Listener
	var c net.Conn
	in(t, to, func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(to.Addr, 0).String())
		return err
	})
	defer l.Close()
	go func() { // ends with the test: all has a deadline
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(deadline)
		_, _ = io.Copy(c, c)
	}()
	in(t, from, func() (err error) {
		c, err = net.DialTimeout("tcp4", netip.AddrPortFrom(target, l.Addr().(*net.TCPAddr).AddrPort().Port()).String(), 20*time.Second)
		return err
	})
	defer c.Close()
	_ = c.SetDeadline(deadline)
	sent := make(chan error, 1)
	go func() { // ends when all is sent, or at the deadline
		_, err := c.Write(payload)
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("TCP from %s to %s: %d octets came back, %v; want %d", from.Addr, target, len(got), err, len(payload))
	}

	server, client := sockets(t, from, to, target)
	defer server.Close()
	defer client.Close()
	go echoAll(server)
	_ = client.SetDeadline(deadline)
	largest := mtu(t, from) - 28 // IPv4 20, UDP 8
	b := make([]byte, 1<<16)
	for _, size := range []int{1, 64, 300, 500, 1024, min(largest, 60000)} {
		if _, err := client.Write(payload[:size]); err != nil {
			t.Errorf("UDP from %s to %s, %d octets: %v", from.Addr, target, size, err)
			continue
		}
		if n, err := client.Read(b); err != nil || !bytes.Equal(b[:n], payload[:size]) {
			t.Errorf("UDP from %s to %s: %d octets came back, %v; want %d", from.Addr, target, n, err, size)
		}
	}
}

func mtu(t *testing.T, e End) (n int) {
	t.Helper()
	in(t, e, func() error {
		i, err := net.InterfaceByName(e.Device)
		if err == nil {
			n = i.MTU
		}
		return err
	})
	return n
}

// in runs f in the namespace of an end.
func in(t *testing.T, e End, f func() error) {
	t.Helper()
	ns, err := os.Open(e.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := (&space{name: e.Netns, file: ns}).do(f); err != nil {
		t.Fatalf("in %s: %v", e.Netns, err)
	}
}

// proofs are how the system's own tools say that the kernel lacks what was asked for, by the first two words of that.
var proofs = map[string]struct{ command, says string }{
	"link add":  {"ip link add name oprx type $(echo '%s' | sed 's/.* type //') 2>&1", "Unknown device type"},
	"qdisc add": {"ip link add oprx type veth && tc qdisc add dev oprx root netem delay 1ms 2>&1; ip link del oprx", "kind is unknown"},
	// Nothing on a Debian system but nft(8) and clang can ask for these; the kernel's table of symbols has them if they are there.
	"filter add": {"grep -c cls_bpf_change /proc/kallsyms; modprobe -n cls_bpf 2>&1", "0\n"},
	"nft add":    {"grep -c nf_flow_table_init /proc/kallsyms; modprobe -n nf_flow_table 2>&1", "0\n"},
	"open tun,":  {"grep -cw tun /proc/misc; modprobe -n tun 2>&1", "0\n"},
	"genl ctrl":  {"genl ctrl get name ovs_datapath 2>&1", "No such file"},
}

// prove fails unless err is a lack that the system's own tools see too, or one of a kind that takes functions of a NIC.
func prove(t *testing.T, k Kind, err error) {
	t.Helper()
	if k.Function {
		if !errors.Is(err, errNoFunctions) {
			t.Errorf("%v, want %v", err, errNoFunctions)
		}
		return
	}
	var l *lack
	if !errors.As(err, &l) {
		t.Errorf("not built, and it is not said what this kernel lacks: %v", err)
		return
	}
	proof, ok := proofs[strings.Join(strings.Fields(l.asked)[:2], " ")]
	if !ok {
		t.Errorf("%v: the test does not know how to prove it", err)
		return
	}
	command := strings.ReplaceAll(proof.command, "%s", l.asked)
	out, _ := exec.Command("unshare", "-n", "sh", "-c", command).CombinedOutput()
	if !strings.Contains(string(out), proof.says) {
		t.Errorf("%v: but %s says %q, want %q", err, command, out, proof.says)
	}
}

// traces are what a path may leave in the system: our namespaces, links of this one, our child processes, and our files.
func traces(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, pattern := range []string{"/run/netns/opr*", Root + "/*", "/sys/class/net/*", "/tmp/opr*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			// The modules of ipip and gre make these in all namespaces when they are loaded, and keep them.
			if !slices.Contains([]string{"tunl0", "gre0", "gretap0", "erspan0"}, filepath.Base(n)) {
				found[n] = true
			}
		}
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			found["child "+string(b)] = true
		}
	}
	return found
}

const buildVerb = "build-and-hang"

// buildAndHang is a process that builds paths of the kinds and waits to be killed.
func buildAndHang(kinds []string) {
	var wants []Want
	for _, k := range kinds {
		wants = append(wants, Want{Kind: k, Twin: true})
	}
	b, missing, err := Build(context.Background(), Options{Kinds: wants, Wait: true})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("built", len(b.Paths), missing)
	select {}
}

// What is left by a process that is killed is removed by the next one, by what it is called: killed when all is there, and in the middle.
func TestKilled(t *testing.T) {
	var kinds []string
	for _, k := range Kinds() {
		kinds = append(kinds, k.Name)
	}
	complete := func(t *testing.T) (removed []string) {
		child, out := startBuild(t, kinds)
		line, err := out.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "built ") {
			t.Errorf("the child says %q, %v", line, err)
		}
		// Meanwhile no other may.
		if _, _, err := Build(t.Context(), Options{}); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), strconv.Itoa(child.Process.Pid)) {
			t.Errorf("Build while process %d has paths: %v, want ErrBusy that names it", child.Process.Pid, err)
		}
		if _, err := Clean(t.Context(), ""); !errors.Is(err, ErrBusy) {
			t.Errorf("Clean while another process has paths: %v, want ErrBusy", err)
		}
		return killAndSweep(t, child)
	}
	t.Run("complete", func(t *testing.T) {
		// A test of another package that waits for its turn may be the first to see that the lock is free, and removes it all.
		var removed []string
		for tries := 0; len(removed) < 40 && tries < 5 && !t.Failed(); tries++ {
			removed = complete(t)
		}
		if len(removed) < 40 {
			t.Errorf("removed only %v", removed)
		}
	})
	seed := time.Now().UnixNano()
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	most := 600 * time.Millisecond
	if os.Getenv("OFFLOADD_VM") != "" { // it takes longer there, and there are more kinds
		most = 20 * time.Second
	}
	for i := range 5 {
		after := time.Duration(random.Int64N(int64(most)))
		t.Run(fmt.Sprintf("%d after %v, seed %d", i, after, seed), func(t *testing.T) {
			child, _ := startBuild(t, []string{"ovn-geneve-tc", "tun-udp", "ovs-user", "overlay-vxlan", "bpf-redirect", "bridge-nat"})
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				if spaces, _ := list(netnsdir.Path); len(spaces) > 0 || time.Now().After(deadline) {
					break // it has begun
				}
			}
			time.Sleep(after)
			t.Logf("removed %v", killAndSweep(t, child))
		})
	}
}

func startBuild(t *testing.T, kinds []string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	child := exec.Command("/proc/self/exe", append([]string{buildVerb}, kinds...)...)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return child, bufio.NewReader(out)
}

// killAndSweep kills a process that has paths, and removes what is left: all of it, and the first time.
func killAndSweep(t *testing.T, child *exec.Cmd) []string {
	t.Helper()
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	l, err := acquire(t.Context(), true) // the killed process's lock is none
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	spaces, err := list(netnsdir.Path)
	if err != nil {
		t.Fatal(err)
	}
	inside := map[inode]bool{}
	for _, path := range spaces {
		if id, err := identify(path); err == nil {
			inside[id] = true
		}
	}
	removed, err := sweep(Root)
	if err != nil {
		t.Error(err)
	}
	if again, err := sweep(Root); err != nil || len(again) != 0 {
		t.Errorf("the second time: removed %v, %v; want nothing", again, err)
	}
	if left, err := processes(inside); err != nil || len(left) != 0 {
		t.Errorf("processes %v are left, %v", left, err)
	}
	if found := slices.DeleteFunc(slices.Sorted(maps.Keys(traces(t))), func(s string) bool { return !strings.Contains(s, "opr") || s == lockFile }); len(found) != 0 {
		t.Errorf("left: %v", found)
	}
	return removed
}

// Other people's names are left alone, also those that only begin like ours, and a dead process's lock file is no lock.
func TestOthersNames(t *testing.T) {
	exclusive(t)
	const theirs = "opr-theirs"
	if out, err := exec.Command("ip", "netns", "add", theirs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer exec.Command("ip", "netns", "delete", theirs).Run()
	// One of ours is there already, with a process inside that nobody knows of.
	if out, err := exec.Command("ip", "netns", "add", "opr0-node1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sleep := exec.Command("ip", "netns", "exec", "opr0-node1", "sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	entered := func() bool {
		id, err := identify(filepath.Join(netnsdir.Path, "opr0-node1"))
		found, _ := processes(map[inode]bool{id: true})
		return err == nil && slices.Contains(found, sleep.Process.Pid)
	}
	for deadline := time.Now().Add(10 * time.Second); !entered() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	b, failed, err := build(t.Context(), []Want{{Kind: "metal", Name: "metal"}}, Options{})
	if err != nil || len(failed) != 0 {
		t.Fatal(err, failed)
	}
	if err := sleep.Wait(); err == nil || sleep.ProcessState.Success() {
		t.Errorf("the process in opr0-node1: %v, want that it was killed", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(netnsdir.Path, theirs)); err != nil {
		t.Errorf("another's namespace: %v", err)
	}
}

// A second round leaves no more open than the first: descriptors, goroutines.
func TestNothingOpen(t *testing.T) {
	exclusive(t)
	round := func() (descriptors, goroutines int) {
		b, _, err := build(t.Context(), []Want{
			{Kind: "tun-udp", Name: "tun-udp"},
			{Kind: "bpf-redirect", Name: "bpf-redirect"},
			{Kind: "routed-rules", Name: "rules"},
			{Kind: "wireguard", Name: "wireguard"},
			{Kind: "vf", Name: "vf"},
		}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			entries, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			descriptors, goroutines = len(entries), runtime.NumGoroutine()
			if goroutines <= 3 || time.Now().After(deadline) { // the last ones are about to end
				return descriptors, goroutines
			}
		}
	}
	d1, g1 := round()
	d2, g2 := round()
	if d2 > d1 || g2 > g1 {
		t.Errorf("after one round %d descriptors and %d goroutines are there, after two %d and %d", d1, g1, d2, g2)
	}
}

// The wire of any kind can be far away, and lossy.
func TestWAN(t *testing.T) {
	exclusive(t)
	const delay = 30 * time.Millisecond
	b, failed, err := build(t.Context(), []Want{{Kind: "metal", Name: "far", Delay: delay}, {Kind: "metal", Name: "lossy", Loss: 0.3}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	k, _ := find("metal")
	for _, f := range failed {
		t.Logf("missing: %v", f.err)
		prove(t, k, f.err)
	}
	if len(failed) > 0 {
		return
	}
	far, lossy := b.Paths[0], b.Paths[1]
	server, client := sockets(t, far.Client, far.Server, far.Target)
	defer server.Close()
	defer client.Close()
	go echoAll(server)
	start := time.Now()
	if err := echo(client, 1, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 2*delay {
		t.Errorf("a round trip took %v, want at least %v", took, 2*delay)
	}
	server, client = sockets(t, lossy.Client, lossy.Server, lossy.Target)
	defer server.Close()
	defer client.Close()
	go echoAll(server)
	lost := 0
	for i := range 200 {
		if err := echo(client, byte(i), 20*time.Millisecond); err != nil {
			lost++
		}
	}
	// 1 - 0.7*0.7 = 0.51; that 200 are outside of this has a chance of less than one in a million, except that a slow machine is late.
	if lost < 65 {
		t.Errorf("of 200 datagrams %d were lost, want about half", lost)
	}
}

// The options of a Want are what is built.
func TestOptions(t *testing.T) {
	exclusive(t)
	var wants []Want
	for _, s := range []string{"metal,mtu=9000", "flannel-vxlan,mtu=1600", "hostgw,rules=60", "veth,rules=1,twin,name=one"} {
		w, err := ParseWant(s)
		if err != nil {
			t.Fatal(err)
		}
		wants = append(wants, w)
	}
	wants, err := Options{Kinds: wants}.wants()
	if err != nil {
		t.Fatal(err)
	}
	b, failed, err := build(t.Context(), wants, Options{Dir: t.TempDir()})
	if err != nil || len(failed) != 0 {
		t.Fatal(err, failed)
	}
	defer b.Close()
	want := []struct{ name, fact, value string }{
		{"metal,mtu=9000", "client MTU", "9000"},
		{"flannel-vxlan,mtu=1600", "client MTU", "1550"},
		{"hostgw,rules=60", "node2 rules", "61"},
		{"one", "node1 rules", "2"},
		{"one-twin", "node1 rules", "2"},
	}
	for i, w := range want {
		p := b.Paths[i]
		if p.Name != w.name || p.Facts[w.fact] != w.value {
			t.Errorf("path %s has %s %q, want path %s with %q", p.Name, w.fact, p.Facts[w.fact], w.name, w.value)
		}
		passes(t, p.Client, p.Server, p.Target)
	}
}

// lender lends veth pairs of the thread's namespace, which hardware knows nothing of, as if they were functions.
type lender struct {
	t        *testing.T
	returned int
}

func (l *lender) lend(_ context.Context, kind string) (fs [2]Function, err error) {
	for i := range fs {
		end, rep := fmt.Sprintf("%s%d", kind, i), fmt.Sprintf("%srep%d", kind, i)
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs(end, 1500), PeerName: rep}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fs, err
		}
		fs[i] = Function{Netdev: end, Representor: rep, Facts: map[string]string{"driver": "none"}, Return: func() error {
			l.returned++
			if _, err := netlink.LinkByName(end); err != nil {
				l.t.Errorf("%s is not where it came from: %v", end, err)
			}
			return nil
		}}
	}
	return fs, nil
}

// ingresses are what devices of the thread's namespace have for filters.
func ingresses(t *testing.T) []tc.Qdisc {
	t.Helper()
	conn, err := tc.Dial(tc.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	all, err := conn.Qdiscs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Functions whose filters hardware does not take are no path, and go back as they were, also if one of them cannot be used at all.
func TestFunctions(t *testing.T) {
	exclusive(t)
	runtime.LockOSThread() // the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	l := &lender{t: t}
	o := Options{Functions: l.lend}
	for i, c := range []struct {
		before func()
		says   string
	}{
		{func() {}, "filter from vfrep0 to vfrep1: "}, // hardware has not taken it, or this kernel has no flower
		{func() {
			conn, err := tc.Dial(tc.DialOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			rep, err := netlink.LinkByName("vfrep1")
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.EnsureClsact(t.Context(), rep.Attrs().Index, 0); err != nil {
				t.Fatal(err)
			}
		}, "representor vfrep1: it has a clsact qdisc of somebody else"},
	} {
		c.before()
		qdiscs := ingresses(t)
		b, failed, err := build(t.Context(), []Want{{Kind: "vf", Name: "vf", Twin: true}}, o)
		if err != nil || len(b.Paths) != 0 || len(failed) != 1 || !strings.HasPrefix(failed[0].err.Error(), c.says) {
			t.Fatalf("built %v, failed %v, %v; want %q", b, failed, err, c.says)
		}
		t.Log(failed[0].err)
		if err := b.Close(); err != nil || l.returned != 2*(i+1) {
			t.Errorf("Close: %v; %d functions were returned, want %d", err, l.returned, 2*(i+1))
		}
		if left := ingresses(t); !slices.Equal(left, qdiscs) {
			t.Errorf("qdiscs %v, were %v", left, qdiscs)
		}
	}
	// Without somebody who has functions there are none.
	_, failed, err := build(t.Context(), []Want{{Kind: "sf", Name: "sf"}}, Options{})
	if err != nil || len(failed) != 1 || !errors.Is(failed[0].err, errNoFunctions) {
		t.Errorf("%v, %v", failed, err)
	}
}

// A context that ends, ends it, and nothing is left.
func TestCancelled(t *testing.T) {
	exclusive(t)
	before := traces(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{Functions: func(ctx context.Context, _ string) (fs [2]Function, err error) {
		cancel()
		return fs, ctx.Err()
	}}
	_, _, err := build(ctx, []Want{{Kind: "tun-udp", Name: "a"}, {Kind: "vf", Name: "b"}, {Kind: "veth", Name: "c"}}, o)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("build: %v, want that it was cancelled", err)
	}
	if after := traces(t); !maps.Equal(before, after) {
		t.Errorf("before: %v\nafter: %v", before, after)
	}
}
