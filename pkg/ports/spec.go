package ports

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/offloadd/offloadd/pkg/reason"
)

// Bounds of a Spec; port.proto documents them.
const (
	maxName      = 253  // bytes of a name
	maxIfname    = 15   // bytes, IFNAMSIZ less the NUL
	maxPath      = 4095 // bytes, PATH_MAX less the NUL
	maxAddresses = 32
	maxRoutes    = 256
	maxLabels    = 16
	maxLabelKey  = 63 // bytes
	minMTU       = 68
	minMTU6      = 1280 // RFC 8200, section 5
	maxMTU       = 65535
	maxVLAN      = 4094 // IEEE 802.1Q reserves 4095
	maxQoS       = 7
)

// Validate returns s with defaults set, or an error with reason InvalidField that names every field that cannot be as
// it is. The paths are those of PortSpec in port.proto.
func (s Spec) Validate() (Spec, error) {
	var c check
	c.key("key.", s.Key)
	c.netns("netns", s.Netns)
	s = c.kinds(s)
	c.word("logical_port", s.LogicalPort, true)
	c.word("iface_id_ver", s.IfaceIDVer, false)
	s = c.addressing(s)
	c.routes(s)
	if s.MTU == 0 {
		s.MTU = DefaultMTU
	}
	c.mtu("mtu", s.MTU, s.has6())
	c.attributes("attributes.", s.Attributes)
	c.labels(s.Labels)
	return s, c.err("ports spec")
}

// Validate returns an error with reason InvalidField if no port can have this key.
func (k Key) Validate() error {
	var c check
	c.key("", k)
	return c.err("ports key")
}

// check collects what is wrong.
type check struct{ fields []reason.Field }

func (c *check) add(path, format string, args ...any) {
	c.fields = append(c.fields, reason.Field{Path: path, Cause: fmt.Sprintf(format, args...)})
}

func (c *check) err(what string) error {
	if len(c.fields) == 0 {
		return nil
	}
	causes := make([]string, len(c.fields))
	for i, f := range c.fields {
		causes[i] = f.Path + " " + f.Cause
	}
	return &reason.Error{
		Reason: reason.InvalidField,
		Err:    fmt.Errorf("%s: %w", what, errors.New(strings.Join(causes, "; "))),
		Fields: c.fields,
	}
}

func (c *check) key(prefix string, k Key) {
	c.identifier(prefix+"network", k.Network)
	c.identifier(prefix+"container_id", k.ContainerID)
	switch n := k.Ifname; {
	case n == "":
		c.add(prefix+"ifname", "is required")
	case len(n) > maxIfname:
		c.add(prefix+"ifname", "%.32q: longer than %d bytes", n, maxIfname)
	case n == "." || n == ".." || strings.ContainsAny(n, "/:\x00") || strings.ContainsFunc(n, unicode.IsSpace):
		c.add(prefix+"ifname", "%q: no name of an interface", n) // as dev_valid_name of net/core/dev.c has it
	}
}

// identifier checks what the CNI specification allows for names of networks and containers.
func (c *check) identifier(field, s string) {
	alphanumeric := func(b byte) bool {
		return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
	}
	switch {
	case s == "":
		c.add(field, "is required")
		return
	case len(s) > maxName:
		c.add(field, "is longer than %d bytes", maxName)
		return
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && (i == 0 || !strings.Contains("_.-", s[i:i+1])) {
			c.add(field, "%q: only letters, digits, '_', '.' and '-' are allowed, with a letter or digit first", s)
			return
		}
	}
}

func (c *check) netns(field, s string) {
	switch {
	case s == "":
		c.add(field, "is required")
	case len(s) > maxPath:
		c.add(field, "is longer than %d bytes", maxPath)
	case !path.IsAbs(s) || path.Clean(s) != s || strings.Contains(s, "\x00"):
		c.add(field, "%q: no absolute path in its shortest form", s)
	}
}

// word checks a name that goes into the database: one printable word.
func (c *check) word(field, s string, required bool) {
	bad := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
	switch {
	case s == "" && required:
		c.add(field, "is required")
	case len(s) > maxName:
		c.add(field, "is longer than %d bytes", maxName)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, bad):
		c.add(field, "%q: white space or unprintable characters", s)
	}
}

// kinds checks what a port may be made of, and where that comes from.
func (c *check) kinds(s Spec) Spec {
	switch s.Kind {
	case "":
		s.Kind = Veth
	case Veth, VF, SF:
	case Auto:
		if len(s.Fallback) == 0 {
			s.Fallback = []Kind{VF, SF} // no veth: what has no hardware has to be asked for
		}
	default:
		c.add("kind", "%q: unknown", s.Kind)
		return s
	}
	for i, k := range s.Fallback {
		field := fmt.Sprintf("fallback[%d]", i)
		switch {
		case k != Veth && k != VF && k != SF:
			c.add(field, "%q: none of veth, vf, sf", k)
		case k == s.Kind || slices.Contains(s.Fallback[:i], k):
			c.add(field, "%s: there already", k)
		case s.Kind == Veth || slices.Contains(s.Fallback[:i], Veth):
			c.add(field, "%s: comes after veth, which is always to be had", k)
		}
	}
	c.word("pool", s.Pool, false)
	c.word("device", s.Device, false)
	kinds := s.Kinds()
	if kinds[0] == Veth {
		for _, f := range []struct {
			path string
			set  bool
		}{{"pool", s.Pool != ""}, {"device", s.Device != ""}, {"attributes", !s.Attributes.equal(Attributes{})}} {
			if f.set {
				c.add(f.path, "is for functions of a NIC, which a veth is not")
			}
		}
		return s
	}
	switch i := slices.Index(s.Fallback, Veth); {
	case i < 0:
	case !s.Attributes.equal(Attributes{}):
		c.add(fmt.Sprintf("fallback[%d]", i), "veth: cannot have the attributes")
	case s.Device != "":
		c.add(fmt.Sprintf("fallback[%d]", i), "veth: is not device %s", s.Device)
	}
	return s
}

func (c *check) attributes(prefix string, a Attributes) {
	if a.VLAN > maxVLAN {
		c.add(prefix+"vlan", "%d: not between 0 and %d", a.VLAN, maxVLAN)
	}
	if a.QoS > maxQoS {
		c.add(prefix+"qos", "%d: not between 0 and %d", a.QoS, maxQoS)
	}
	if a.VLAN == 0 && a.QoS != 0 {
		c.add(prefix+"qos", "is a part of a VLAN tag: vlan is required")
	}
	switch a.VLANProto {
	case "", VLAN8021Q, VLAN8021AD:
	default:
		c.add(prefix+"vlan_protocol", "%q: neither 802.1q nor 802.1ad", a.VLANProto)
	}
	if a.VLAN == 0 && a.VLANProto != "" {
		c.add(prefix+"vlan_protocol", "is a part of a VLAN tag: vlan is required")
	}
	switch a.LinkState {
	case "", LinkAuto, LinkEnable, LinkDisable:
	default:
		c.add(prefix+"link_state", "%q: none of auto, enable, disable", a.LinkState)
	}
	if a.MaxRate != 0 && a.MinRate > a.MaxRate {
		c.add(prefix+"min_rate", "%d: more than max_rate, %d", a.MinRate, a.MaxRate)
	}
}

func (c *check) addressing(s Spec) Spec {
	if s.Addressing == "" {
		s.Addressing = Static
		if s.MAC == (MAC{}) && len(s.Addresses) == 0 {
			s.Addressing = FromLogicalPort
		}
	}
	switch s.Addressing {
	case Static:
	case FromLogicalPort:
		if s.MAC != (MAC{}) || len(s.Addresses) > 0 {
			c.add("addressing", "the addresses come from the logical port: mac and addresses must be empty")
		}
	default:
		c.add("addressing", "%q: unknown", s.Addressing)
	}
	if s.MAC[0]&1 != 0 {
		c.add("mac", "%s: not a unicast address", s.MAC)
	}
	if len(s.Addresses) > maxAddresses {
		c.add("addresses", "has %d, more than %d", len(s.Addresses), maxAddresses)
		return s
	}
	for i, p := range s.Addresses {
		field := fmt.Sprintf("addresses[%d]", i)
		switch a := p.Addr(); {
		case !p.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || p.Bits() == 0:
			c.add(field, "%s: no unicast address with a prefix length", p)
		case slices.ContainsFunc(s.Addresses[:i], func(o netip.Prefix) bool { return o.Addr() == a }):
			c.add(field, "%s: there twice", a)
		}
	}
	return s
}

func (c *check) routes(s Spec) {
	type route struct {
		to     netip.Prefix
		metric uint32
	}
	seen := map[route]string{}
	for i, g := range s.Gateways {
		field := fmt.Sprintf("gateways[%d]", i)
		if !c.gateway(field, g) {
			continue
		}
		to := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if g.Is6() {
			to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if _, ok := seen[route{to, 0}]; ok {
			c.add(field, "%s: a second one of its family", g)
		}
		seen[route{to, 0}] = field
	}
	if len(s.Routes) > maxRoutes {
		c.add("routes", "has %d, more than %d", len(s.Routes), maxRoutes)
		return
	}
	for i, r := range s.Routes {
		field := fmt.Sprintf("routes[%d]", i)
		to := r.Destination
		switch {
		case !to.IsValid() || to.Addr().Is4In6():
			c.add(field+".destination", "is required")
			continue
		case to.Masked() != to:
			c.add(field+".destination", "%s: has host bits; %s was meant, perhaps", to, to.Masked())
		}
		if r.Gateway.IsValid() && c.gateway(field+".gateway", r.Gateway) && r.Gateway.Is4() != to.Addr().Is4() {
			c.add(field+".gateway", "%s: of another family than %s", r.Gateway, to)
		}
		if r.MTU != 0 {
			c.mtu(field+".mtu", r.MTU, to.Addr().Is6())
		}
		if r.AdvMSS < 0 || r.AdvMSS > maxMTU {
			c.add(field+".advmss", "%d: not between 0 and %d", r.AdvMSS, maxMTU)
		}
		if other, ok := seen[route{to, r.Metric}]; ok {
			c.add(field, "%s with metric %d: there already, as %s", to, r.Metric, other)
		}
		seen[route{to, r.Metric}] = field
	}
}

func (c *check) gateway(field string, g netip.Addr) bool {
	if !g.IsValid() || g.Is4In6() || g.Zone() != "" || g.IsUnspecified() || g.IsMulticast() || g.IsLoopback() {
		c.add(field, "%s: no address of a router", g)
		return false
	}
	return true
}

func (c *check) mtu(field string, mtu int, six bool) {
	least := minMTU
	if six {
		least = minMTU6
	}
	if mtu < least || mtu > maxMTU {
		c.add(field, "%d: not between %d and %d", mtu, least, maxMTU)
	}
}

func (s Spec) has6() bool {
	return slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() && !p.Addr().Is4In6() })
}

func (c *check) labels(labels map[string]string) {
	if len(labels) > maxLabels {
		c.add("labels", "has %d, more than %d", len(labels), maxLabels)
		return
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		switch v := labels[k]; {
		case k == "" || len(k) > maxLabelKey || !utf8.ValidString(k):
			c.add("labels", "%.80q: a key has 1 to %d bytes", k, maxLabelKey)
		case len(v) > maxName || !utf8.ValidString(v):
			c.add(fmt.Sprintf("labels[%q]", k), "is longer than %d bytes", maxName)
		}
	}
}
