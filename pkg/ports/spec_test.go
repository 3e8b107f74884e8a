package ports

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/reason"
)

func good() Spec {
	return Spec{
		Key:         Key{Network: "pods", ContainerID: "c1", Ifname: "eth0"},
		Netns:       "/run/netns/c1",
		Kind:        Veth,
		LogicalPort: "default_web-1",
		IfaceIDVer:  "7",
		Addressing:  Static,
		MAC:         MAC{0x0a, 0, 0, 0, 0, 1},
		Addresses:   prefixes("10.0.0.5/24", "fd00::5/64"),
		Gateways:    addresses("10.0.0.1", "fe80::1"),
		Routes:      []Route{{Destination: netip.MustParsePrefix("10.1.0.0/16"), Gateway: netip.MustParseAddr("10.0.0.2"), MTU: 1400}},
		MTU:         1500,
		Labels:      map[string]string{"pod": "web-1"},
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addresses(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestValidate(t *testing.T) {
	attributes := func(a Attributes) func(*Spec) { return func(s *Spec) { s.Kind, s.Attributes = VF, a } }
	route := func(r Route) func(*Spec) { return func(s *Spec) { s.Routes = []Route{r} } }
	for _, c := range []struct {
		name   string
		change func(*Spec)
		want   string // the fields refused, in order
	}{
		{"good", func(*Spec) {}, ""},
		{"nothing", func(s *Spec) { *s = Spec{} }, "key.network key.container_id key.ifname netns logical_port"},
		{"network", func(s *Spec) { s.Key.Network = "-x" }, "key.network"},
		{"container", func(s *Spec) { s.Key.ContainerID = "a/b" }, "key.container_id"},
		{"long container", func(s *Spec) { s.Key.ContainerID = strings.Repeat("a", 254) }, "key.container_id"},
		{"ifname of 15", func(s *Spec) { s.Key.Ifname = strings.Repeat("a", 15) }, ""},
		{"ifname of 16", func(s *Spec) { s.Key.Ifname = strings.Repeat("a", 16) }, "key.ifname"},
		{"ifname with a slash", func(s *Spec) { s.Key.Ifname = "a/b" }, "key.ifname"},
		{"ifname with a space", func(s *Spec) { s.Key.Ifname = "a b" }, "key.ifname"},
		{"ifname ..", func(s *Spec) { s.Key.Ifname = ".." }, "key.ifname"},
		{"relative netns", func(s *Spec) { s.Netns = "run/netns" }, "netns"},
		{"netns with dots", func(s *Spec) { s.Netns = "/run/../x" }, "netns"},
		{"netns with NUL", func(s *Spec) { s.Netns = "/run\x00" }, "netns"},
		{"kind", func(s *Spec) { s.Kind = "tap" }, "kind"},
		{"VF", func(s *Spec) { s.Kind = VF }, ""},
		{"anything", func(s *Spec) { s.Kind = Auto }, ""},
		{"anything, a veth too", func(s *Spec) { s.Kind, s.Fallback, s.Pool = Auto, []Kind{SF, VF, Veth}, "fast" }, ""},
		{"VF or SF", func(s *Spec) { s.Kind, s.Fallback = VF, []Kind{SF} }, ""},
		{"veth or VF", func(s *Spec) { s.Fallback = []Kind{VF} }, "fallback[0]"},
		{"VF or VF", func(s *Spec) { s.Kind, s.Fallback = VF, []Kind{VF} }, "fallback[0]"},
		{"SF twice", func(s *Spec) { s.Kind, s.Fallback = VF, []Kind{SF, SF} }, "fallback[1]"},
		{"something after a veth", func(s *Spec) { s.Kind, s.Fallback = Auto, []Kind{Veth, VF} }, "fallback[1]"},
		{"anything or anything", func(s *Spec) { s.Kind, s.Fallback = Auto, []Kind{Auto} }, "fallback[0]"},
		{"unknown fallback", func(s *Spec) { s.Kind, s.Fallback = VF, []Kind{"tap"} }, "fallback[0]"},
		{"pool", func(s *Spec) { s.Kind, s.Pool = VF, "a b" }, "pool"},
		{"device", func(s *Spec) { s.Kind, s.Device = VF, "a b" }, "device"},
		{"veth of a pool", func(s *Spec) { s.Pool, s.Device, s.Attributes = "fast", "0000:03:00.2", Attributes{VLAN: 1} }, "pool device attributes"},
		{"veth in another way", func(s *Spec) { s.Kind, s.Fallback, s.Pool = Auto, []Kind{Veth}, "fast" }, "pool"},
		{"a device or a veth", func(s *Spec) { s.Kind, s.Fallback, s.Device = VF, []Kind{Veth}, "0000:03:00.2" }, "fallback[0]"},
		{"attributes or a veth", func(s *Spec) { s.Kind, s.Fallback, s.Attributes = VF, []Kind{SF, Veth}, Attributes{MaxRate: 1} }, "fallback[1]"},
		{"attributes", attributes(Attributes{VLAN: 4094, QoS: 7, VLANProto: VLAN8021AD, LinkState: LinkDisable, MinRate: 5, MaxRate: 5}), ""},
		{"no limit", attributes(Attributes{MinRate: 5}), ""},
		{"VLAN", attributes(Attributes{VLAN: 4095}), "attributes.vlan"},
		{"QoS", attributes(Attributes{VLAN: 1, QoS: 8}), "attributes.qos"},
		{"QoS and protocol of no VLAN", attributes(Attributes{QoS: 1, VLANProto: VLAN8021Q}), "attributes.qos attributes.vlan_protocol"},
		{"protocol", attributes(Attributes{VLAN: 1, VLANProto: "802.3"}), "attributes.vlan_protocol"},
		{"link state", attributes(Attributes{LinkState: "up"}), "attributes.link_state"},
		{"rates", attributes(Attributes{MinRate: 6, MaxRate: 5}), "attributes.min_rate"},
		{"logical port", func(s *Spec) { s.LogicalPort = "a b" }, "logical_port"},
		{"logical port with a newline", func(s *Spec) { s.LogicalPort = "a\n" }, "logical_port"},
		{"version", func(s *Spec) { s.IfaceIDVer = "\x01" }, "iface_id_ver"},
		{"addressing", func(s *Spec) { s.Addressing = "dhcp" }, "addressing"},
		{"both", func(s *Spec) { s.Addressing = FromLogicalPort }, "addressing"},
		{"multicast MAC", func(s *Spec) { s.MAC[0] = 1 }, "mac"},
		{"multicast address", func(s *Spec) { s.Addresses = prefixes("224.0.0.1/24") }, "addresses[0]"},
		{"mapped address", func(s *Spec) { s.Addresses = prefixes("10.0.0.5/24", "::ffff:10.0.0.6/120") }, "addresses[1]"},
		{"no prefix length", func(s *Spec) { s.Addresses = prefixes("10.0.0.5/0") }, "addresses[0]"},
		{"address twice", func(s *Spec) { s.Addresses = prefixes("10.0.0.5/24", "10.0.0.5/25") }, "addresses[1]"},
		{"33 addresses", func(s *Spec) { s.Addresses = make([]netip.Prefix, 33) }, "addresses"},
		{"two IPv4 gateways", func(s *Spec) { s.Gateways = addresses("10.0.0.1", "10.0.0.2") }, "gateways[1]"},
		{"no gateway", func(s *Spec) { s.Gateways = []netip.Addr{{}} }, "gateways[0]"},
		{"gateway with zone", func(s *Spec) { s.Gateways = addresses("fe80::1%eth0") }, "gateways[0]"},
		{"route to nowhere", route(Route{}), "routes[0].destination"},
		{"route with host bits", route(Route{Destination: netip.MustParsePrefix("10.0.0.1/8")}), "routes[0].destination"},
		{"route by another family", route(Route{Destination: netip.MustParsePrefix("fd01::/64"), Gateway: netip.MustParseAddr("10.0.0.1")}), "routes[0].gateway"},
		{"IPv6 route with a small MTU", route(Route{Destination: netip.MustParsePrefix("fd01::/64"), MTU: 1000}), "routes[0].mtu"},
		{"advmss", route(Route{Destination: netip.MustParsePrefix("10.9.0.0/16"), AdvMSS: 1 << 20}), "routes[0].advmss"},
		{"second default route", route(Route{Destination: netip.MustParsePrefix("0.0.0.0/0")}), "routes[0]"},
		{"default route of another metric", route(Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Metric: 5}), ""},
		{"257 routes", func(s *Spec) { s.Routes = make([]Route, 257) }, "routes"},
		{"small MTU", func(s *Spec) { s.MTU = 67 }, "mtu"},
		{"small MTU for IPv6", func(s *Spec) { s.MTU = 1279 }, "mtu"},
		{"small MTU for IPv4", func(s *Spec) { s.MTU, s.Addresses = 1279, prefixes("10.0.0.5/24") }, ""},
		{"large MTU", func(s *Spec) { s.MTU = 65536 }, "mtu"},
		{"negative MTU", func(s *Spec) { s.MTU = -1 }, "mtu"},
		{"label without a key", func(s *Spec) { s.Labels = map[string]string{"": "x"} }, "labels"},
		{"long label", func(s *Spec) { s.Labels = map[string]string{"a": strings.Repeat("x", 254)} }, `labels["a"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good()
			c.change(&s)
			_, err := s.Validate()
			var fields []string
			if e, ok := errors.AsType[*reason.Error](err); ok {
				for _, f := range e.Fields {
					fields = append(fields, f.Path)
					if !strings.Contains(err.Error(), f.Path+" "+f.Cause) {
						t.Errorf("%q does not name %s", err, f.Path)
					}
				}
			}
			if got := strings.Join(fields, " "); got != c.want || (err == nil) != (c.want == "") || err != nil && reason.Of(err) != reason.InvalidField {
				t.Errorf("refused %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	s := good()
	s.Kind, s.Addressing, s.MTU = "", "", 0
	got, err := s.Validate()
	if err != nil || got.Kind != Veth || got.Addressing != Static || got.MTU != DefaultMTU {
		t.Errorf("%+v, %v", got, err)
	}
	s.MAC, s.Addresses = MAC{}, nil
	if got, err := s.Validate(); err != nil || got.Addressing != FromLogicalPort {
		t.Errorf("%+v, %v", got, err)
	}
	if again, err := got.Validate(); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("a valid spec changes: %+v, %+v, %v", got, again, err)
	}
}

// Differ sees a change of any field, and names it.
func TestDiffer(t *testing.T) {
	changes := []func(*Spec){
		func(s *Spec) { s.Key.Ifname = "eth1" },
		func(s *Spec) { s.Netns += "x" },
		func(s *Spec) { s.Kind = SF },
		func(s *Spec) { s.Fallback = []Kind{SF} },
		func(s *Spec) { s.Pool += "x" },
		func(s *Spec) { s.Device += "x" },
		func(s *Spec) { s.Attributes.MaxRate++ },
		func(s *Spec) { s.LogicalPort += "x" },
		func(s *Spec) { s.IfaceIDVer += "x" },
		func(s *Spec) { s.Addressing = FromLogicalPort },
		func(s *Spec) { s.MAC[5]++ },
		func(s *Spec) { s.Addresses = s.Addresses[:1] },
		func(s *Spec) { s.Gateways = nil },
		func(s *Spec) { s.Routes[0].Metric++ },
		func(s *Spec) { s.MTU++ },
		func(s *Spec) { s.Labels["x"] = "y" },
	}
	if n := reflect.TypeFor[Spec]().NumField(); n != len(changes) {
		t.Fatalf("Spec has %d fields, the test knows %d", n, len(changes))
	}
	if d := good().Differ(good()); d != nil {
		t.Errorf("equal specs differ in %v", d)
	}
	var names []string
	for i, change := range changes {
		s := good()
		change(&s)
		d := s.Differ(good())
		if len(d) != 1 || slices.Contains(names, d[0]) {
			t.Errorf("change %d of %s: differ in %v", i, reflect.TypeFor[Spec]().Field(i).Name, d)
		}
		names = append(names, d...)
	}
}

// Attributes are equal if their values are.
func TestAttributesEqual(t *testing.T) {
	yes, yes2, no := true, true, false
	all := []Attributes{
		{},
		{VLAN: 1},
		{VLAN: 1, QoS: 1},
		{VLAN: 1, VLANProto: VLAN8021AD},
		{Trust: &yes},
		{Trust: &no},
		{SpoofCheck: &yes},
		{SpoofCheck: &no},
		{LinkState: LinkAuto},
		{MinRate: 1},
		{MaxRate: 1},
	}
	for i, a := range all {
		for j, b := range all {
			if a.equal(b) != (i == j) {
				t.Errorf("%+v and %+v: equal %v", a, b, a.equal(b))
			}
		}
	}
	if !(Attributes{Trust: &yes}).equal(Attributes{Trust: &yes2}) {
		t.Error("two pointers to true differ")
	}
}

// What may be made is in order of preference, and nothing that was not asked for.
func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		kind     Kind
		fallback []Kind
		want     []Kind
	}{
		{"", nil, []Kind{Veth}},
		{VF, nil, []Kind{VF}},
		{SF, []Kind{VF, Veth}, []Kind{SF, VF, Veth}},
		{Auto, nil, []Kind{VF, SF}},
		{Auto, []Kind{SF, Veth}, []Kind{SF, Veth}},
	} {
		s := good()
		s.Kind, s.Fallback = tt.kind, tt.fallback
		s, err := s.Validate()
		if got := s.Kinds(); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s %v: %v, %v; want %v", tt.kind, tt.fallback, got, err, tt.want)
		}
	}
}

func TestMAC(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var m, back MAC
		for i := range m {
			m[i] = byte(rnd.IntN(256))
		}
		text, err := m.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := back.UnmarshalText(text); err != nil || back != m {
			t.Fatalf("%s comes back as %s, %v", m, back, err)
		}
		if up, err := ParseMAC(strings.ToUpper(m.String())); err != nil || up != m {
			t.Fatalf("upper case: %s, %v", up, err)
		}
	}
	for _, s := range []string{"", "0a:00:00:00:00", "0a:00:00:00:00:0g", "0a-00-00-00-00-01", "0a:00:00:00:00:01:", "0a:00:00:00:00:1", "+a:00:00:00:00:01"} {
		if m, err := ParseMAC(s); err == nil {
			t.Errorf("ParseMAC(%q) = %s", s, m)
		}
	}
	var zero MAC
	if text, _ := zero.MarshalText(); len(text) != 0 || zero.UnmarshalText(text) != nil {
		t.Errorf("the zero MAC is %q", text)
	}
}
