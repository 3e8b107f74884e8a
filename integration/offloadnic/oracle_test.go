package offloadnic

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/integration/offload"
)

// block is the number of the block that the devices share, for tc(8).
const block = "3869"

// A filter is what tc(8) says of one.
type filter struct {
	Protocol string
	Pref     int
	Chain    uint32
	Options  *struct {
		Handle    int
		Indev     string
		Keys      map[string]any
		SkipHW    bool `json:"skip_hw"`
		InHW      bool `json:"in_hw"`
		InHWCount int  `json:"in_hw_count"`
		Actions   []map[string]any
	}
}

func (f *filter) String() string {
	return fmt.Sprintf("chain %d pref %d handle %#x protocol %s indev %q %v to %q, in hardware for %d devices, skip_hw %t",
		f.Chain, f.Pref, f.Options.Handle, f.Protocol, f.Options.Indev, f.Options.Keys, f.sendsTo(), f.Options.InHWCount, f.Options.SkipHW)
}

// list asks tc(8) for the filters of the block.
func list() ([]filter, error) {
	out, err := run("tc", "-j", "filter", "show", "block", block)
	if err != nil {
		return nil, err
	}
	var all []filter
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("tc -j filter show: %w", err)
	}
	return slices.DeleteFunc(all, func(f filter) bool { return f.Options == nil }), nil
}

// asksTunnel reports whether a filter is for packets from a tunnel alone.
func (f *filter) asksTunnel() bool { return f.Options.Keys["enc_dst_port"] != nil }

// sendsTo is the device of a filter's redirection, or "".
func (f *filter) sendsTo() string {
	for _, a := range f.Options.Actions {
		if a["kind"] == "mirred" {
			return fmt.Sprint(a["to_dev"])
		}
	}
	return ""
}

// violations are the filters that hardware has for a device without one before it, which the same packet may meet. ports are those that take
// filters: the representors. What comes by the tunnel device meets in hardware only filters that ask for a tunnel, whose ports all take them.
func violations(all []filter, ports []string) (bad []string) {
	for _, device := range append(slices.Clone(ports), offload.TunnelDevice) {
		tunnel := device == offload.TunnelDevice
		if !slices.ContainsFunc(all, func(f filter) bool { return f.Options.Indev == device && f.Options.InHW }) {
			continue // what comes by it meets guards in hardware at most
		}
		var absent []*filter
		for i := range all { // in tc's order
			f := &all[i]
			o := f.Options
			if o.Indev != "" && o.Indev != device || !tunnel && f.asksTunnel() {
				continue
			}
			need := 1
			if o.Indev == "" {
				need = len(ports)
				if slices.Contains(ports, f.sendsTo()) {
					need--
				}
				if tunnel {
					need++
				}
			}
			may := o.InHW && (!tunnel || f.asksTunnel())
			if may {
				for _, a := range absent {
					if a.Chain == f.Chain && a.Pref < f.Pref && !disjoint(a, f) {
						bad = append(bad, fmt.Sprintf("for %s hardware has %v, but not %v", device, f, a))
						break
					}
				}
			}
			if (!may || o.InHWCount < need) && (!tunnel || !hasTwin(all, f)) {
				absent = append(absent, f)
			}
		}
	}
	return bad
}

// hasTwin reports whether hardware has a filter that does for packets from tunnels what f does for all.
func hasTwin(all []filter, f *filter) bool {
	return slices.ContainsFunc(all, func(g filter) bool {
		if g.Options.Indev != offload.TunnelDevice || !g.Options.InHW || g.Chain != f.Chain || g.Pref != f.Pref || g.Protocol != f.Protocol {
			return false
		}
		keys := map[string]any{}
		for k, v := range g.Options.Keys {
			if k != "enc_dst_port" {
				keys[k] = v
			}
		}
		return reflect.DeepEqual(keys, f.Options.Keys) && fmt.Sprint(g.Options.Actions[0]["control_action"]) == fmt.Sprint(f.Options.Actions[0]["control_action"])
	})
}

// disjoint reports whether no packet can meet both filters. What it does not understand it takes for something that may.
func disjoint(a, b *filter) bool {
	if a.Protocol != b.Protocol && a.Protocol != "all" && b.Protocol != "all" {
		return true
	}
	for k, x := range a.Options.Keys {
		y, asks := b.Options.Keys[k]
		if !asks {
			continue
		}
		if k == "ip_proto" && x != y || k == "ct_state" && contradict(fmt.Sprint(x), fmt.Sprint(y)) {
			return true
		}
		v, m, ok := masked(k, x, a.Options.Keys)
		w, n, ok2 := masked(k, y, b.Options.Keys)
		if ok && ok2 {
			d := new(big.Int).Xor(v, w)
			if d.And(d, m).And(d, n).Sign() != 0 {
				return true
			}
		}
	}
	return false
}

// contradict reports whether one of two states of a connection has +flag where the other has -flag.
func contradict(a, b string) bool {
	for i := 0; i+4 <= len(a); i += 4 { // +trk-rpl: all flags have three letters
		sign := map[byte]string{'+': "-", '-': "+"}[a[i]]
		if strings.Contains(b, sign+a[i+1:i+4]) {
			return true
		}
	}
	return false
}

// masked reads a value and its mask as tc(8) prints them.
func masked(key string, x any, keys map[string]any) (value, mask *big.Int, ok bool) {
	if key == "geneve_opt_key" {
		return octets(x), octets(keys["geneve_opt_mask"]), true
	}
	if n, is := x.(float64); is {
		return big.NewInt(int64(n)), ones(64), true
	}
	text, is := x.(string)
	if !is {
		return nil, nil, false
	}
	text, after, hasMask := strings.Cut(text, "/")
	value, size := number(text)
	if value == nil {
		return nil, nil, false
	}
	if !hasMask {
		return value, ones(size), true
	}
	if bits, err := strconv.Atoi(after); err == nil && strings.ContainsAny(text, ".:") && !strings.Contains(after, ":") && size != 48 {
		return value, new(big.Int).Xor(ones(size), ones(size-bits)), true
	}
	mask, _ = number(after)
	return value, mask, mask != nil
}

func ones(bits int) *big.Int {
	return new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(bits)), big.NewInt(1))
}

// number reads an address or a number, and says how many bits it has.
func number(s string) (n *big.Int, bits int) {
	if a, err := netip.ParseAddr(s); err == nil {
		return new(big.Int).SetBytes(a.AsSlice()), a.BitLen()
	}
	if m, err := net.ParseMAC(s); err == nil {
		return new(big.Int).SetBytes(m), 8 * len(m)
	}
	if u, err := strconv.ParseUint(s, 0, 64); err == nil {
		return new(big.Int).SetUint64(u), 64
	}
	return nil, 0
}

// octets reads the data of a Geneve option.
func octets(x any) *big.Int {
	n := new(big.Int)
	options, _ := x.([]any)
	for _, o := range options {
		option, _ := o.(map[string]any)
		data, _ := option["data"].([]any)
		for _, b := range data {
			octet, _ := b.(float64)
			n.Add(n.Lsh(n, 8), big.NewInt(int64(octet)))
		}
	}
	return n
}

// The oracle sees what it is for.
func TestViolations(t *testing.T) {
	parse := func(text string) (all []filter) {
		check(t, json.Unmarshal([]byte(text), &all))
		return all
	}
	const frag = `{"protocol":"ip","pref":10,"options":{"handle":1,"keys":{"eth_type":"ipv4","ip_flags":"frag"},%s"actions":[{"kind":"gact","control_action":{"type":"pass"}}]}}`
	const entry = `{"protocol":"ip","pref":100,"options":{"handle":1,"indev":"a","keys":{"eth_type":"ipv4","dst_ip":"10.0.0.%s"},"in_hw":true,"in_hw_count":1,"actions":[]}}`
	const tunnel = `{"protocol":"ip","pref":100,"options":{"handle":2,"indev":"genev_sys_6081","keys":{"enc_dst_port":6081},"in_hw":true,"in_hw_count":1,"actions":[]}}`
	const twin = `{"protocol":"ip","pref":10,"options":{"handle":2,"indev":"genev_sys_6081","keys":{"eth_type":"ipv4","ip_flags":"frag","enc_dst_port":6081},"in_hw":true,"in_hw_count":1,"actions":[{"kind":"gact","control_action":{"type":"pass"}}]}}`
	const lower = `{"protocol":"ip","pref":110,"options":{"handle":1,"indev":"a","keys":{"eth_type":"ipv4","dst_ip":"10.0.0.0/30"},"in_hw":true,"in_hw_count":1,"actions":[]}}`
	has := func(n int) string { return fmt.Sprintf(frag, fmt.Sprintf(`"in_hw":true,"in_hw_count":%d,`, n)) }
	lost := strings.ReplaceAll(entry, `"in_hw":true,"in_hw_count":1,`, "")
	for _, c := range []struct {
		name string
		all  []string
		want int
	}{
		{"all there", []string{has(2), fmt.Sprintf(entry, "1")}, 0},
		{"guard of none", []string{fmt.Sprintf(frag, ""), fmt.Sprintf(entry, "1")}, 1},
		{"guard of one", []string{has(1), fmt.Sprintf(entry, "1")}, 1},
		{"guard not for tunnels", []string{has(2), tunnel}, 1},
		{"guard for tunnels", []string{has(2), twin, tunnel}, 0},
		{"overlapping", []string{has(2), fmt.Sprintf(lost, "1"), lower}, 1},
		{"another state", []string{has(2), strings.ReplaceAll(fmt.Sprintf(lost, "1"), `"dst_ip":"10.0.0.1"`, `"ct_state":"+trk+est-rpl"`), strings.ReplaceAll(lower, `"dst_ip":"10.0.0.0/30"`, `"ct_state":"+trk+est+rpl"`)}, 0},
		{"disjoint", []string{has(2), fmt.Sprintf(lost, "9"), lower}, 0},
	} {
		if bad := violations(parse("["+strings.Join(c.all, ",")+"]"), []string{"a", "b"}); len(bad) != c.want {
			t.Errorf("%s: %d violations, want %d: %v", c.name, len(bad), c.want, bad)
		}
	}
}
