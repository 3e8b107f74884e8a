package path

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Want is a path of a kind, or two.
type Want struct {
	Kind string

	// Name is the path's. Empty: what String says.
	Name string

	// Twin makes a second path, of the name with "-twin" behind, that is identical with the first.
	Twin bool

	// MTU is that of the wire between two nodes, and of the devices of a single node. Tunnels have what is left of it. 0: 1500.
	MTU int

	// Delay, Jitter and Loss (a fraction of 1) are added to the wire in each direction.
	Delay, Jitter time.Duration
	Loss          float64

	// Rules is how many rules of nftables a packet passes on each node that match nothing, before conntrack accepts it. 0: none, and
	// no conntrack, unless the kind has some.
	Rules int

	// Chassis is the program that makes nodes chassis of OVN, ChassisOffloadd or ChassisOVNController. Empty: the first.
	Chassis string
}

// The options of a Want, as they are called in text.
const (
	OptionMTU     = "mtu"
	OptionDelay   = "delay"
	OptionJitter  = "jitter"
	OptionLoss    = "loss"
	OptionRules   = "rules"
	OptionChassis = "chassis"
	OptionTwin    = "twin"
	OptionName    = "name"
)

var (
	onWire    = []string{OptionMTU, OptionDelay, OptionJitter, OptionLoss}
	onRouters = []string{OptionMTU, OptionDelay, OptionJitter, OptionLoss, OptionRules}
	onChassis = []string{OptionMTU, OptionDelay, OptionJitter, OptionLoss, OptionChassis}
)

// ParseWant reads KIND[,OPTION=VALUE...], for example "routed,rules=200,delay=5ms,loss=0.01,twin".
func ParseWant(s string) (Want, error) {
	words := strings.Split(s, ",")
	w := Want{Kind: words[0]}
	for _, word := range words[1:] {
		option, value, _ := strings.Cut(word, "=")
		var err error
		switch option {
		case OptionMTU:
			w.MTU, err = strconv.Atoi(value)
		case OptionDelay:
			w.Delay, err = time.ParseDuration(value)
		case OptionJitter:
			w.Jitter, err = time.ParseDuration(value)
		case OptionLoss:
			w.Loss, err = strconv.ParseFloat(value, 64)
		case OptionRules:
			w.Rules, err = strconv.Atoi(value)
		case OptionChassis:
			w.Chassis = value
		case OptionName:
			w.Name = value
		case OptionTwin:
			w.Twin = true
		default:
			err = fmt.Errorf("there is no option of that name")
		}
		if err != nil {
			return Want{}, fmt.Errorf("path %q: option %q: %w", s, word, err)
		}
	}
	k, ok := find(w.Kind)
	if !ok {
		return Want{}, fmt.Errorf("path kind %q: there is none of that name", w.Kind)
	}
	return w, w.check(k)
}

// String is the text that ParseWant reads, without name and twin.
func (w Want) String() string {
	var b strings.Builder
	b.WriteString(w.Kind)
	for _, o := range w.set() {
		fmt.Fprintf(&b, ",%s=%s", o[0], o[1])
	}
	return b.String()
}

// set returns the options that are given, with their values.
func (w Want) set() [][2]string {
	var set [][2]string
	if w.MTU != 0 {
		set = append(set, [2]string{OptionMTU, strconv.Itoa(w.MTU)})
	}
	if w.Delay != 0 {
		set = append(set, [2]string{OptionDelay, w.Delay.String()})
	}
	if w.Jitter != 0 {
		set = append(set, [2]string{OptionJitter, w.Jitter.String()})
	}
	if w.Loss != 0 {
		set = append(set, [2]string{OptionLoss, strconv.FormatFloat(w.Loss, 'g', -1, 64)})
	}
	if w.Rules != 0 {
		set = append(set, [2]string{OptionRules, strconv.Itoa(w.Rules)})
	}
	if w.Chassis != "" {
		set = append(set, [2]string{OptionChassis, w.Chassis})
	}
	return set
}

// check says what is wrong with the options for this kind.
func (w Want) check(k Kind) error {
	for _, o := range w.set() {
		if !slices.Contains(k.Options, o[0]) {
			return fmt.Errorf("path %s: the kind has no option %s", w, o[0])
		}
	}
	// The bounds are of sense, not of the kernel's, except that IPv4 over a tunnel is to have 576 octets left (RFC 791), and that veth
	// takes 65535.
	switch {
	case w.MTU != 0 && (w.MTU < 700 || w.MTU > 65535):
		return fmt.Errorf("path %s: an MTU is from 700 to 65535", w)
	case w.Delay < 0 || w.Delay > 2*time.Second || w.Jitter < 0 || w.Jitter > w.Delay:
		return fmt.Errorf("path %s: a delay is at most 2s, and jitter at most the delay", w)
	case !(w.Loss >= 0 && w.Loss <= 0.5): // nor no number
		return fmt.Errorf("path %s: a loss is from 0 to 0.5", w)
	case w.Rules < 0 || w.Rules > 10000:
		return fmt.Errorf("path %s: there are at most 10000 rules", w)
	case w.Chassis != "" && w.Chassis != ChassisOffloadd && w.Chassis != ChassisOVNController:
		return fmt.Errorf("path %s: a chassis is %s or %s", w, ChassisOffloadd, ChassisOVNController)
	}
	return nil
}

// names are those of the paths that w makes.
func (w Want) names() []string {
	if w.Twin {
		return []string{w.Name, w.Name + "-twin"}
	}
	return []string{w.Name}
}

func (w Want) mtu() int {
	if w.MTU == 0 {
		return 1500
	}
	return w.MTU
}

func (w Want) wan() bool { return w.Delay != 0 || w.Loss != 0 }
