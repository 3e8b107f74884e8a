package path

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// Each kind carries UDP and TCP both ways, or is missing because the kernel lacks something, which the lack's proof shows; afterwards nothing
// is left of it.
func TestKinds(t *testing.T) {
	exclusive(t)
	for _, k := range Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			before := traces(t)
			b, failed, err := build(t.Context(), []Want{{Kind: k.Name, Name: k.Name, Twin: true}}, Options{})
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
			for _, p := range b.Paths {
				t.Logf("%s: %v", p.Name, p.Facts)
				if k.Translates != p.Translated() {
					t.Errorf("%s: translated: %v, want %v", p.Name, p.Translated(), k.Translates)
				}
				passes(t, p.Client, p.Server, p.Target)
				if !p.Translated() {
					passes(t, p.Server, p.Client, p.Client.Addr)
				}
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

// passes sends datagrams and a stream there and back.
func passes(t *testing.T, from, to End, target netip.Addr) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	payload := bytes.Repeat([]byte("probe "), 20000) // many segments, which offloads may merge
	var l net.Listener
	var u, c net.Conn
	var server net.PacketConn
	in(t, to, func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(to.Addr, 0).String())
		if err == nil {
			server, err = net.ListenPacket("udp4", netip.AddrPortFrom(to.Addr, 0).String())
		}
		return err
	})
	defer l.Close()
	defer server.Close()
	go func() { // ends with the test: all has a deadline
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(deadline)
		_, _ = io.Copy(c, c)
	}()
	go func() { // likewise
		b := make([]byte, 2000)
		_ = server.SetDeadline(deadline)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(b[:n], from)
		}
	}()
	in(t, from, func() (err error) {
		c, err = net.DialTimeout("tcp4", netip.AddrPortFrom(target, l.Addr().(*net.TCPAddr).AddrPort().Port()).String(), 5*time.Second)
		if err == nil {
			u, err = net.Dial("udp4", netip.AddrPortFrom(target, server.LocalAddr().(*net.UDPAddr).AddrPort().Port()).String())
		}
		return err
	})
	defer c.Close()
	defer u.Close()
	_ = c.SetDeadline(deadline)
	go func() { // ends when all is sent, or at the deadline
		_, _ = c.Write(payload)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("TCP from %s to %s: %d octets came back, %v; want %d", from.Addr, target, len(got), err, len(payload))
	}
	b := make([]byte, 2000)
	_ = u.SetDeadline(deadline)
	for _, size := range []int{1, 64, 1300} {
		if _, err := u.Write(payload[:size]); err != nil {
			t.Errorf("UDP from %s to %s: %v", from.Addr, target, err)
		}
		if n, err := u.Read(b); err != nil || !bytes.Equal(b[:n], payload[:size]) {
			t.Errorf("UDP from %s to %s: %d octets came back, %v; want %d", from.Addr, target, n, err, size)
		}
	}
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
	// Nothing on a Debian system but nft(8) can ask for these; the kernel's table of symbols has them if they are there.
	"nft add":   {"grep -c nf_flow_table_init /proc/kallsyms; modprobe -n nf_flow_table 2>&1", "0\n"},
	"genl ctrl": {"genl ctrl get name ovs_datapath 2>&1", "No such file"},
}

// prove fails unless err is a lack that the system's own tools see too, or one of a kind that takes a Builder.
func prove(t *testing.T, k Kind, err error) {
	t.Helper()
	if k.build == nil {
		if err.Error() != k.absent || k.absent == "" {
			t.Errorf("%v, want %q", err, k.absent)
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
			found[n] = true
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", os.Getpid()))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if s := strings.TrimSpace(string(b)); s != "" {
		found["children "+s] = true
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

// What is left by a process that is killed in the middle is removed by the next one, by what it is called.
func TestKilled(t *testing.T) {
	var kinds []string
	for _, k := range Kinds() {
		kinds = append(kinds, k.Name)
	}
	child := exec.Command("/proc/self/exe", append([]string{buildVerb}, kinds...)...)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "built ") {
		t.Errorf("the child says %q, %v", line, err)
	}
	t.Log(line)

	// Meanwhile no other may.
	if _, _, err := Build(t.Context(), Options{}); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprint(child.Process.Pid)) {
		t.Errorf("Build while process %d has paths: %v, want ErrBusy that names it", child.Process.Pid, err)
	}
	if _, err := Clean(t.Context(), ""); !errors.Is(err, ErrBusy) {
		t.Errorf("Clean while another process has paths: %v, want ErrBusy", err)
	}

	if err := child.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	l, err := acquire(t.Context(), true) // the killed process's lock is none
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	spaces, _ := list(netnsDir)
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
	if len(removed) < len(kinds) {
		t.Errorf("removed %v", removed)
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
		id, err := identify(filepath.Join(netnsDir, "opr0-node1"))
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
	if _, err := os.Stat(filepath.Join(netnsDir, theirs)); err != nil {
		t.Errorf("another's namespace: %v", err)
	}
}
