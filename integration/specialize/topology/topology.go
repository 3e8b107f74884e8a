package topology

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/offloadd/offloadd/integration/parity/content"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/specialize"
)

// A Topology is the program of a chassis, and what a switch knows beside it. It does not change.
type Topology struct {
	Name    string
	Content content.Content

	Owned []Owned

	Ports   []Port   // local logical ports, in the order of Content.Local, without those whose logical port does not exist
	Tunnels []Tunnel // by chassis and address
	Patches []Port   // localnet and l2gateway ports: Device is empty
	Zones   map[string]uint16
	Geneve  ir.Field // the tun_metadata field of OVN's option

	// TunnelDevice is where packets of all Geneve tunnels arrive.
	TunnelDevice Device

	Skipped []compile.Skip // what the program leaves out

	SB    *sb.Store
	Local *chassis.Local
}

// Owned is the rules of one owner, and the groups that they use.
type Owned struct {
	Owner  eval.Owner
	Rules  []ir.Rule
	Groups map[uint32]ir.SelectGroup
	Meters map[uint32]ir.RateMeter
}

// A Device is a network interface.
type Device struct {
	Name    string
	Ifindex int
}

// A Port is a port of the integration bridge.
type Port struct {
	Lport  string
	Device Device
	OFPort uint16
}

// A Tunnel is a tunnel port of the integration bridge.
type Tunnel struct {
	Chassis       string
	Type          string // geneve or vxlan
	OFPort        uint16
	Remote, Local netip.Addr
}

// Rules returns all rules. Some may have the same table, priority and match: see eval.Builder.
func (t *Topology) Rules() []ir.Rule {
	var all []ir.Rule
	for _, o := range t.Owned {
		all = append(all, o.Rules...)
	}
	return all
}

// Program returns the rules and groups as a program.
func (t *Topology) Program() *eval.Program {
	var b eval.Builder
	for _, o := range t.Owned {
		b.Add(o.Owner, o.Rules, o.Groups)
	}
	return b.Program()
}

// Specialize returns what the daemon would give pkg/specialize: new rules, and a node where filters handle the packets of all ports.
// Tunnels have local addresses, as with ovn-set-local-ip.
func (t *Topology) Specialize() (*specialize.Rules, specialize.Input) {
	rules := specialize.NewRules()
	for _, o := range t.Owned {
		rules.Replace(specialize.Owner(o.Owner), o.Rules)
	}
	tunnelDevice := specialize.Device{Name: t.TunnelDevice.Name, Ifindex: t.TunnelDevice.Ifindex, Tunnel: true}
	in := specialize.Input{Geneve: t.Geneve, TunnelDevice: &tunnelDevice}
	for _, p := range t.Ports {
		in.Ports = append(in.Ports, specialize.Port{OFPort: p.OFPort, Device: specialize.Device{Name: p.Device.Name, Ifindex: p.Device.Ifindex}, Enter: true})
	}
	for _, x := range t.Tunnels {
		if x.Type == "geneve" {
			in.Tunnels = append(in.Tunnels, specialize.Tunnel{OFPort: x.OFPort, Remote: x.Remote, Local: x.Local})
		}
	}
	return rules, in
}

// Names returns the names of the hand-made topologies, sorted.
func Names() []string { return slices.Sorted(maps.Keys(fixed())) }

func fixed() map[string]content.Content {
	all := map[string]content.Content{}
	for _, list := range [][]content.Content{content.Fixed(), content.Beyond(), own()} {
		for _, c := range list {
			all[c.Name] = c
		}
	}
	return all
}

// Fixed makes a hand-made topology.
func Fixed(name string) (*Topology, error) {
	c, ok := fixed()[name]
	if !ok {
		return nil, fmt.Errorf("topology %s: none of that name; there are %s", name, strings.Join(Names(), ", "))
	}
	return Make(c)
}

// Random makes the topology of a seed.
func Random(seed uint64) (*Topology, error) {
	switch seed % 4 {
	case 0:
		return Make(content.RandomTopology(seed / 4))
	case 1:
		return Make(content.RandomACLs(seed / 4))
	default:
		return Make(randomCluster(seed))
	}
}

var made struct {
	sync.Mutex
	by map[string]*Topology // by the content's name
}

// Make makes the topology of a content. Contents with equal names are equal.
func Make(c content.Content) (*Topology, error) {
	made.Lock()
	defer made.Unlock()
	if t := made.by[c.Name]; t != nil {
		return t, nil
	}
	var t *Topology
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: see central
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		var dbs databases
		if dbs, err = settled(ctx, c); err == nil {
			t, err = compiled(c, dbs)
		}
	}()
	<-done
	if err != nil {
		return nil, fmt.Errorf("topology %s: %w", c.Name, err)
	}
	if made.by == nil {
		made.by = map[string]*Topology{}
	}
	made.by[c.Name] = t
	return t, nil
}

// compiled compiles what the databases say.
func compiled(c content.Content, dbs databases) (*Topology, error) {
	rows, err := canonical(dbs.south)
	if err != nil {
		return nil, err
	}
	t := &Topology{Name: c.Name, Content: c, SB: sb.NewStore(), Geneve: ir.TunMetadata0}
	if d := t.SB.Apply(rows); len(d.Refused) > 0 {
		return nil, fmt.Errorf("southbound row refused: %w", d.Refused[0].Err)
	}
	sw := chassis.NewSwitch()
	for name, rows := range dbs.local {
		for uuid, row := range rows {
			if b, ok := row.(*vswitchdb.Bridge); ok {
				b.ExternalIDs = nil // zones of datapaths that have other UUIDs now
			}
			sw.Apply([]chassis.Change{{Table: name, UUID: uuid, New: row}})
		}
	}
	state := chassis.New(chassis.Options{Hostname: chassisName})
	for turn := range uint64(3) { // the first does not know yet what it monitors
		t.Local = state.Step(chassis.Inputs{
			Turn: turn + 1, AckedTurn: turn, Switch: sw, SB: t.SB, SBSynced: true, CondInSync: true, CondTurn: turn,
		}).Local
	}
	if t.Local == nil {
		return nil, errors.New("the chassis does not know what is local")
	}
	engine := compile.NewEngine()
	engine.Recompute(compile.Input{SB: t.SB, Local: t.Local, Geneve: t.Geneve}, func(r compile.Replacement) {
		t.Owned = append(t.Owned, Owned{
			Owner: eval.Owner{Row: r.Owner.Row, Part: r.Owner.Datapath}, Rules: r.Rules, Groups: r.Groups, Meters: r.Meters,
		})
	})
	t.Skipped = engine.Skips()
	t.describe()
	return t, nil
}

// Interface indexes that nobody has.
const (
	firstIfindex  = 100
	tunnelIfindex = 99
)

func (t *Topology) describe() {
	t.Zones = t.Local.Zones
	t.TunnelDevice = Device{"genev_sys_6081", tunnelIfindex}
	for i, name := range t.Content.Local {
		if p, ok := t.Local.Ports[name]; ok && t.SB.PortByName(name) != nil {
			t.Ports = append(t.Ports, Port{name, Device{device(i), firstIfindex + i}, p.OFPort})
		}
	}
	for _, x := range t.Local.Tunnels {
		remote, err := netip.ParseAddr(x.RemoteIP)
		if err != nil {
			continue // nothing comes from there
		}
		local := netip.MustParseAddr(LocalIP)
		if remote.Is6() {
			local = netip.MustParseAddr("fd31::1")
		}
		t.Tunnels = append(t.Tunnels, Tunnel{x.Chassis, x.Type, x.OFPort, remote, local})
	}
	for _, name := range slices.Sorted(maps.Keys(t.Local.Patch)) {
		t.Patches = append(t.Patches, Port{Lport: name, OFPort: t.Local.Patch[name]})
	}
}

// Named makes a hand-made topology by its name, or a random one by its seed in decimal or the name that it has.
func Named(name string) (*Topology, error) {
	if seed, err := strconv.ParseUint(name, 10, 64); err == nil {
		return Random(seed)
	}
	if kind, number, ok := strings.Cut(name, "random-"); ok && kind == "" {
		kind, number, _ := strings.Cut(number, "-")
		if seed, err := strconv.ParseUint(number, 10, 64); err == nil {
			switch kind {
			case "topology":
				return Make(content.RandomTopology(seed))
			case "acls":
				return Make(content.RandomACLs(seed))
			case "cluster":
				return Make(randomCluster(seed))
			}
		}
	}
	return Fixed(name)
}
