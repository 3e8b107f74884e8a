package offloadnic

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/offload"
	"github.com/offloadd/offloadd/integration/simnic"
)

// ports are the representors of the pods.
func ports(r *offload.Rig) (all []string) {
	for _, p := range r.Pods() {
		if p.Node == r.Nodes[0] {
			all = append(all, p.Iface())
		}
	}
	return all
}

// A state is what hardware has of the filters.
type state struct {
	all, inHW, kept, refused int
	without                  []string
}

// String includes some of what is not in hardware.
func (s state) String() string {
	return fmt.Sprintf("%d filters, %d in hardware, %d kept, %d refused%s", s.all, s.inHW, s.kept, s.refused, strings.Join(s.without, ""))
}

func look(all []filter) (s state) {
	for i := range all {
		switch o := all[i].Options; {
		case o.InHW:
			s.inHW++
		case o.SkipHW:
			s.kept++
		default:
			s.refused++
		}
		if len(s.without) < 8 && !all[i].Options.InHW {
			s.without = append(s.without, "\n  "+all[i].String())
		}
	}
	s.all = len(all)
	return s
}

// stays is how long nothing has to change before filters count as settled: on its way to all of them the daemon passes states that fit.
const stays = time.Second

// settled waits until the filters are in force, fits says that they are as they should and goes on to, and nothing is in hardware that must not.
func settled(t *testing.T, r *offload.Rig, fits func(state) error) state {
	t.Helper()
	var s state
	var was string
	var since time.Time
	eventually(t, func() error {
		all, err := list()
		if err != nil {
			return err
		}
		s = look(all)
		if i := slices.IndexFunc(all, func(f filter) bool { return f.Pref == 1 }); i >= 0 || s.all == 0 {
			return fmt.Errorf("%d filters, and something is closed: %v", s.all, s)
		}
		if bad := violations(all, ports(r)); len(bad) > 0 {
			return fmt.Errorf("%d filters must not be in hardware: %s", len(bad), bad[0])
		}
		if err := fits(s); err != nil {
			return err
		}
		if now := s.String(); now != was {
			was, since = now, time.Now()
		}
		if time.Since(since) < lab.Patient(stays) {
			return fmt.Errorf("they still change: %v", s)
		}
		return nil
	})
	return s
}

// everything is for settled: all is in hardware that the driver takes.
func everything(s state) error {
	if s.kept > 0 || s.inHW*100 < s.all*95 {
		return fmt.Errorf("not in hardware: %v", s)
	}
	return nil
}

// anew makes the daemon install all filters anew, since somebody has taken them away: with the last qdisc goes the block. The daemon may be as
// quick as that, or not have come to a device yet.
func anew(t *testing.T, r *offload.Rig) {
	t.Helper()
	for _, dev := range append(ports(r), offload.TunnelDevice) {
		if out, err := run("tc", "qdisc", "del", "dev", dev, "clsact"); err != nil && !strings.Contains(err.Error(), "Invalid handle") {
			t.Fatal(err, out)
		}
	}
}

// passes sends TCP and UDP along all paths. Filters have to forward it.
func passes(t *testing.T, r *offload.Rig) {
	t.Helper()
	const size, requests = 1 << 17, 20
	for i, p := range offload.Paths() {
		from, to, v6 := r.Pod(p.From), r.Pod(p.To), i%2 == 1
		before, err := r.Count(t.Context())
		check(t, err)
		_, err = offload.Transfer(t.Context(), from, to, v6, 5432, size)
		check(t, err)
		answered, err := offload.Exchange(t.Context(), from, to, v6, offload.UDPPort, requests)
		check(t, err)
		if answered != requests {
			t.Errorf("%s: %d of %d requests were answered", p.Name, answered, requests)
		}
		after, err := r.Count(t.Context())
		check(t, err)
		for n := range after {
			after[n] = after[n].Sub(before[n])
		}
		there, back := r.Way(after, p.From, p.To), r.Way(after, p.To, p.From)
		sent, received := there.TC, back.TC
		if p.Tunnel {
			received = back.TCFar // the other node has no filters
		}
		const least = size/1400 + requests/2
		if sent < least || received < least {
			t.Errorf("%s: filters of n1 sent %d packets there and %d back, want %d", p.Name, sent, received, least)
		}
	}
}

// The daemon finds the representors by itself, and all filters that the driver takes are in hardware. The tools say so.
func TestInHardware(t *testing.T) {
	r := rig(t)
	s := settled(t, r, everything)
	t.Log(s)
	passes(t, r)
	ctl(t, r, []string{`Offload: +\d+ filters on 5 devices`, `offload\.filter +serving`}, "status")
	out := ctl(t, r, []string{`In hardware: +\d+ of \d+ filters`}, "explain", "db1")
	if strings.Contains(out, "kept from the hardware") {
		t.Error("filters are kept from the hardware")
	}
	if out := ctl(t, r, nil, "flows", "--tc", "--port", "db1"); len(regexp.MustCompile(`(?m)^\d+ +\d+ +\S+ +\S+ +installed +yes`).FindAllString(out, -1)) < 50 {
		t.Error("flows --tc does not say that filters are in hardware")
	}
	ctl(t, r, []string{`device.drop +ok`, `device.chains +ok`, `device.redirect +ok`, `device.edit +ok`, `device.ct +ok`}, "doctor", "--device", nic.VFRepresentor(0))
	db1, db3 := r.Pod("db1"), r.Pod("db3")
	ctl(t, r, []string{`nic +decides +sent out of ` + db3.Iface()}, "explain", "db1",
		fmt.Sprintf("eth.src == %s && eth.dst == %s && ip4.src == %v && ip4.dst == %v && tcp.src == 40000 && tcp.dst == 5432", db1.MAC, db3.MAC, db1.Addr(false), db3.Addr(false)))
}

// Whatever the driver refuses, nothing is in hardware behind it, packets pass as before, and the tools tell what it says.
func TestRefusals(t *testing.T) {
	faulty(t)
	r := rig(t)
	settled(t, r, everything)
	for _, c := range []struct {
		name   string
		refuse func() error
		says   string
	}{
		{"connections", func() error { return nic.RefuseKeys("ct") }, "Unsupported key"},
		{"tunnel options", func() error { return nic.RefuseKeys("enc_opts") }, "Unsupported key"},
		{"rewrites", func() error { return nic.RefuseActions("pedit") }, "Not implemented offload action"},
		{"more than 600 rules", func() error { return nic.Set(simnic.MaxRules, 600) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			lost := during(t, r, func() {
				check(t, c.refuse())
				anew(t, r)
				s := settled(t, r, func(s state) error {
					if s.refused == 0 || s.inHW == 0 {
						return fmt.Errorf("nothing is refused, or all is: %v", s)
					}
					return nil
				})
				t.Log(s)
				if c.says != "" {
					ctl(t, r, []string{`not in hardware: \d+ filters`, "why: .*" + c.says}, "explain", map[bool]string{true: offload.TunnelDevice, false: "web1"}[c.name == "tunnel options"])
					ctl(t, r, []string{"not in hardware: .*" + c.says}, "flows", "--tc")
				}
				passes(t, r)
			})
			// A packet that is under way while a qdisc is put in or taken away is lost (dev_deactivate), which anew has done to all devices.
			if lost > 2 {
				t.Errorf("%d pings were lost", lost)
			}
		})
	}
	check(t, nic.RefuseKeys())
	check(t, nic.RefuseActions())
	check(t, nic.Set(simnic.MaxRules, 0))
	anew(t, r)
	settled(t, r, everything)
}

// during pings in a node and between nodes while f runs, and returns how many answers did not come.
func during(t *testing.T, r *offload.Rig, f func()) (lost int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make(chan int)
	for _, p := range [][2]string{{"db1", "db3"}, {"web1", "db2"}} {
		go func() {
			missing := 0
			for ctx.Err() == nil {
				ok, err := r.Pod(p[0]).Ping(context.WithoutCancel(ctx), r.Pod(p[1]).Addr(false), lab.Patient(2*time.Second))
				if err != nil || !ok {
					missing++
				}
			}
			results <- missing
		}()
	}
	f()
	cancel()
	return <-results + <-results
}

// A NIC that forgets everything gets everything again, from the same daemon.
func TestReset(t *testing.T) {
	faulty(t)
	r := rig(t)
	before := settled(t, r, everything)
	pid := r.Nodes[0].AgentPID()
	pinNumbers(t, r)
	check(t, nic.Reset())
	for _, p := range ports(r) {
		check(t, ip("link set "+p+" up"))
	}
	settled(t, r, func(s state) error {
		if s.all < before.all {
			return fmt.Errorf("%v, before %v", s, before)
		}
		return everything(s)
	})
	check(t, r.Sync(t.Context()))
	passes(t, r)
	if now := r.Nodes[0].AgentPID(); now != pid || !r.Nodes[0].AgentRuns() {
		t.Errorf("the daemon is %d, was %d", now, pid)
	}
}

// pinNumbers makes ovs-vswitchd give devices that come back the numbers that they had. Otherwise it gives the first that comes any free number, and asks for that of the
// Interface's ofport for the next, which may be the same: then it exchanges the two without end (Open vSwitch 3.1).
func pinNumbers(t *testing.T, r *offload.Rig) {
	t.Helper()
	for _, p := range ports(r) {
		number, err := r.Nodes[0].VSctl(t.Context(), "get", "Interface", p, "ofport")
		check(t, err)
		_, err = r.Nodes[0].VSctl(t.Context(), "set", "Interface", p, "ofport_request="+strings.TrimSpace(number))
		check(t, err)
	}
}

// What a NIC takes away silently is seen by who looks, and comes back with a device.
func TestLost(t *testing.T) {
	faulty(t)
	r := rig(t)
	settled(t, r, everything)
	fromTunnel := func() (n int) {
		all, err := list()
		check(t, err)
		for _, f := range all {
			if f.Options.Indev == offload.TunnelDevice && f.Options.InHW {
				n++
			}
		}
		return n
	}
	if fromTunnel() == 0 {
		t.Fatal("no filter of the tunnel device is in hardware")
	}
	check(t, nic.Set(simnic.Tunnels, 0))
	ctl(t, r, nil, "explain", "db1")
	eventually(t, func() error {
		if !strings.Contains(r.Tails(60), "filters lost by the NIC") {
			return fmt.Errorf("the daemon does not say that filters were lost")
		}
		return nil
	})
	settled(t, r, func(s state) error {
		if n := fromTunnel(); n > 0 || s.inHW == 0 {
			return fmt.Errorf("%d filters of the tunnel device are in hardware, of all %v", n, s)
		}
		return nil
	})
	passes(t, r)
	check(t, nic.Set(simnic.Tunnels, 1))
	_, err := run("tc", "qdisc", "del", "dev", ports(r)[0], "clsact")
	check(t, err)
	settled(t, r, everything)
	if fromTunnel() == 0 {
		t.Error("no filter of the tunnel device is in hardware again")
	}
}
