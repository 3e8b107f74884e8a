package cniconf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// required are the variables that a verb needs, of section 2, "CNI operations".
var required = map[string][]string{
	"ADD":    {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
	"CHECK":  {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
	"DEL":    {"CNI_CONTAINERID", "CNI_IFNAME"},
	"GC":     {"CNI_PATH"},
	"STATUS": {},
}

// verbs are those with a configuration, and the first version that has each.
var verbs = []struct{ name, since string }{
	{"ADD", "0.1.0"}, {"DEL", "0.1.0"}, {"CHECK", "0.4.0"}, {"STATUS", "1.1.0"}, {"GC", "1.1.0"},
}

// The codes of section 5, "Error".
const (
	incompatibleVersion = 1
	environment         = 4
	decoding            = 6
	invalidConfig       = 7
)

// A container's life, in each version that the plugin knows.
func TestLife(t *testing.T) {
	r := newRig(t)
	supported := r.must(r.container(2).with(map[string]string{"CNI_NETNS": ""}).feed("VERSION", `{"cniVersion":"1.1.0"}`)).SupportedVersions
	if !slices.Contains(supported, newest) {
		t.Errorf("VERSION: %v, without %s", supported, newest)
	}
	c := r.container(3)
	for _, version := range supported {
		if version < "0.3.0" {
			continue // results had another form
		}
		a := r.must(c.run("ADD", version, nil))
		r.verify(c, version, a)
		prev := map[string]any{"prevResult": json.RawMessage(a.raw)}
		if version >= "0.4.0" {
			r.must(c.run("CHECK", version, prev))
		}
		for _, again := range []string{"once", "twice"} {
			if a := r.must(c.run("DEL", version, prev)); strings.TrimSpace(a.raw) != "" {
				t.Errorf("%s: DEL %s prints %s", version, again, a.raw)
			}
		}
		if got := r.links(c.space); !slices.Equal(got, []string{"lo"}) {
			t.Errorf("%s: after DEL the container has %v", version, got)
		}
		if version >= newest {
			r.must(c.run("STATUS", version, nil))
		}
	}
}

// verify compares a result with the container.
func (r *rig) verify(c *container, version string, a answer) {
	r.t.Helper()
	if a.CNIVersion != version {
		r.t.Errorf("%s: the result has version %q", version, a.CNIVersion)
	}
	at := -1
	for i, iface := range a.Interfaces {
		if iface.Sandbox == "" {
			if !slices.Contains(r.links(r.host), iface.Name) {
				r.t.Errorf("%s: there is no %s on the host", version, iface.Name)
			}
			continue
		}
		if iface.Name == "eth0" && iface.Sandbox == c.env["CNI_NETNS"] {
			at = i
		}
	}
	if at < 0 {
		r.t.Fatalf("%s: no eth0 with its sandbox in %s", version, a.raw)
	}
	addresses := r.sh("ip", "-n", c.space, "-o", "addr", "show", "dev", "eth0", "up")
	if link := r.sh("ip", "-n", c.space, "-o", "link", "show", "dev", "eth0"); !strings.Contains(link, a.Interfaces[at].MAC) {
		r.t.Errorf("%s: the result has MAC %s, the container %s", version, a.Interfaces[at].MAC, link)
	}
	for _, ip := range a.IPs {
		p, err := netip.ParsePrefix(ip.Address)
		if err != nil || ip.Interface == nil || *ip.Interface != at || !strings.Contains(addresses, p.Addr().String()) {
			r.t.Errorf("%s: address %+v (%v), the container has %s", version, ip, err, addresses)
		}
		if family := map[bool]string{true: "4", false: "6"}[p.Addr().Is4()]; version < "1.0.0" && ip.Version != family {
			r.t.Errorf("%s: address %+v, want family %s", version, ip, family)
		}
	}
}

// A variable that a verb needs is missing, or cannot be.
func TestEnvironment(t *testing.T) {
	r := newRig(t)
	c := r.container(2)
	for _, v := range verbs {
		for _, name := range required[v.name] {
			r.refuses(v.name+" without "+name, name, environment)(c.with(map[string]string{name: ""}).run(v.name, newest, nil))
		}
	}
	for name, values := range map[string][]string{
		"CNI_CONTAINERID": {"../x", "a b", "-x", "x\n", "é"},
		"CNI_IFNAME":      {"a/b", ".", "..", "sixteen-bytes-xx", "a b", "a:b"},
	} {
		for _, value := range values {
			r.refuses(fmt.Sprintf("ADD with %s=%q", name, value), "", environment, invalidConfig)(c.with(map[string]string{name: value}).run("ADD", newest, nil))
		}
	}
	r.refuses("a verb that is none", "", environment)(c.run("FIX", newest, nil))
	if got := r.links(c.space); !slices.Equal(got, []string{"lo"}) {
		t.Errorf("the container has %v", got)
	}
}

// What comes on the standard input is no configuration.
func TestInput(t *testing.T) {
	r := newRig(t)
	c := r.container(2)
	for _, v := range verbs {
		for _, stdin := range []string{"", "{", "[]", "7", `"x"`, "\x00", `{"cniVersion":7,"name":"x"}`, "{}}", strings.Repeat("[", 20000)} {
			r.refuses(fmt.Sprintf("%s of %.20q", v.name, stdin), "", decoding, invalidConfig)(c.feed(v.name, stdin))
		}
		for _, stdin := range []string{`{"cniVersion":"1.1.0"}`, `{"cniVersion":"1.1.0","name":""}`, `{"cniVersion":"1.1.0","name":"a/b"}`} {
			r.refuses(fmt.Sprintf("%s of %s", v.name, stdin), "", invalidConfig)(c.feed(v.name, stdin))
		}
		r.refuses(v.name+" of version 9.9.9", "", incompatibleVersion)(c.run(v.name, "9.9.9", nil))
	}
	r.refuses("GC of version 1.0.0", "", incompatibleVersion)(c.run("GC", "1.0.0", nil))
	r.refuses("STATUS of version 1.0.0", "", incompatibleVersion)(c.run("STATUS", "1.0.0", nil))
	r.refuses("CHECK of version 0.3.1", "", incompatibleVersion)(c.run("CHECK", "0.3.1", nil))
}

// ADD fails, and leaves nothing.
func TestFailedAdd(t *testing.T) {
	r := newRig(t)
	taken := r.container(2)
	r.sh("ip", "-n", taken.space, "link", "add", "eth0", "type", "bridge")
	r.refuses("ADD of an interface that exists", "")(taken.run("ADD", newest, nil))
	if got := r.links(taken.space); !slices.Equal(got, []string{"eth0", "lo"}) {
		t.Errorf("the container has %v", got)
	}
	r.must(taken.run("DEL", newest, nil))

	gone := r.container(3)
	r.sh("ip", "netns", "del", gone.space)
	r.refuses("ADD without the namespace", "")(gone.run("ADD", newest, nil))
	r.must(gone.run("DEL", newest, nil))

	r.refuses("ADD to no namespace", "")(r.container(4).with(map[string]string{"CNI_NETNS": "/etc/hostname"}).run("ADD", newest, nil))
	r.refuses("ADD to the plugin's own namespace", "")(r.container(5).with(map[string]string{"CNI_NETNS": "/proc/self/ns/net"}).run("ADD", newest, nil))
}

// DEL succeeds however little is left or known.
func TestDelete(t *testing.T) {
	r := newRig(t)
	for i, tt := range []struct {
		name  string
		do    func(*container) *container
		extra map[string]any
	}{
		{"never added", nil, nil},
		{"no prevResult", func(c *container) *container { r.must(c.run("ADD", newest, nil)); return c }, nil},
		{"null prevResult", func(c *container) *container { r.must(c.run("ADD", newest, nil)); return c }, map[string]any{"prevResult": nil}},
		{"link gone", func(c *container) *container {
			r.must(c.run("ADD", newest, nil))
			r.sh("ip", "-n", c.space, "link", "del", "eth0")
			return c
		}, nil},
		{"namespace gone", func(c *container) *container {
			r.must(c.run("ADD", newest, nil))
			r.sh("ip", "netns", "del", c.space)
			return c
		}, nil},
		{"no namespace", func(c *container) *container {
			r.must(c.run("ADD", newest, nil))
			r.sh("ip", "netns", "del", c.space)
			return c.with(map[string]string{"CNI_NETNS": ""})
		}, nil},
	} {
		c := r.container(i + 2)
		if tt.do != nil {
			c = tt.do(c)
		}
		for range 2 {
			if a, err := c.run("DEL", newest, tt.extra); err != nil || a.Code != nil {
				t.Errorf("%s: %v %s", tt.name, err, a.raw)
			}
		}
	}
}

// CHECK succeeds right after ADD, and finds what somebody broke.
func TestDamage(t *testing.T) {
	r := newRig(t)
	for i, damage := range []string{"addr flush dev eth0", "link set eth0 down", "link del eth0"} {
		c := r.container(i + 2)
		a := r.must(c.run("ADD", newest, nil))
		prev := map[string]any{"prevResult": json.RawMessage(a.raw)}
		r.must(c.run("CHECK", newest, prev))
		r.sh(append([]string{"ip", "-n", c.space}, strings.Fields(damage)...)...)
		r.refuses("CHECK after "+damage, "")(c.run("CHECK", newest, prev))
		r.must(c.run("DEL", newest, prev))
	}
}

// Containers come and go at the same time.
func TestConcurrent(t *testing.T) {
	r := newRig(t)
	all := make([]*container, containers-1)
	for i := range all {
		all[i] = r.container(i + 2)
	}
	for _, verb := range []string{"ADD", "DEL"} {
		var wg sync.WaitGroup
		answers := make([]answer, len(all))
		errs := make([]error, len(all))
		for i, c := range all {
			wg.Go(func() { answers[i], errs[i] = c.run(verb, newest, nil) })
		}
		wg.Wait()
		for i := range all {
			r.must(answers[i], errs[i])
			if verb == "ADD" {
				r.verify(all[i], newest, answers[i])
			}
		}
	}
}

// GC removes what is not in the list, of its own network. A list that is absent or null says nothing.
func TestGC(t *testing.T) {
	r := newRig(t)
	const key = "cni.dev/valid-attachments"
	type attachment map[string]string
	one, two, other := r.container(2), r.container(3), r.container(4)
	elsewhere := map[string]any{"name": "cniconf-other"}
	r.must(one.run("ADD", newest, nil))
	r.must(two.run("ADD", newest, nil))
	r.must(other.run("ADD", newest, elsewhere))
	has := func(c *container) bool { return slices.Contains(r.links(c.space), "eth0") }
	for _, tt := range []struct {
		name     string
		extra    map[string]any
		one, two bool
	}{
		{"absent", nil, true, true},
		{"null", map[string]any{key: nil}, true, true},
		{"both", map[string]any{key: []attachment{{"containerID": one.space, "ifname": "eth0"}, {"containerID": two.space, "ifname": "eth0"}}}, true, true},
		{"one", map[string]any{key: []attachment{{"containerID": one.space, "ifname": "eth0"}}}, true, false},
		{"another interface", map[string]any{key: []attachment{{"containerID": one.space, "ifname": "eth1"}}}, false, false},
		{"empty", map[string]any{key: []attachment{}}, false, false},
	} {
		r.must(other.run("GC", newest, tt.extra))
		if has(one) != tt.one || has(two) != tt.two || !has(other) {
			t.Errorf("%s: left %v, %v, other network %v; want %v, %v, true", tt.name, has(one), has(two), has(other), tt.one, tt.two)
		}
	}
	r.must(other.run("DEL", newest, elsewhere))
}
