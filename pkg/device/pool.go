package device

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/devlink"
)

// A Pool is a set of functions that are alike, as the configuration names it.
type Pool struct {
	Name   string `json:"name"`
	Device string `json:"device"` // a device's handle, as pci/0000:03:00.0, or the netdev of a PF
	Kind   Kind   `json:"kind"`

	// VFs says which VFs are in it, as "0-7,12". "": all of the device that no other pool names. The pool takes those that exist.
	VFs string `json:"vfs,omitempty"`

	// PF is the number of the PF whose SFs they are. FirstSF is the lowest of their sfnums, of which there are twice Max: all SFs with one of
	// these numbers are the pool's, whoever made them.
	PF      uint16  `json:"pf,omitempty"`
	FirstSF *uint32 `json:"first_sf,omitempty"` // nil: DefaultFirstSF

	// While fewer than MinWarm SFs are free more are made, and of those that are free more than MaxWarm are removed. There are never more
	// than Max.
	MinWarm int `json:"min_warm,omitempty"`
	MaxWarm int `json:"max_warm,omitempty"` // 0: MinWarm
	Max     int `json:"max,omitempty"`

	// What SFs are set to before they are activated. The zero value of each: it is the driver's choice.
	RoCE     *bool  `json:"roce,omitempty"`
	MaxIOEQs uint32 `json:"max_io_eqs,omitempty"` // event queues, and with them queues of the netdev
}

// Names of what pools set of SFs, as devlink-port(8) has them.
const (
	attributeRoCE     = "roce"
	attributeMaxIOEQs = "max_io_eqs"
)

// function is what SFs of the pool are set to, as a request.
func (p *Pool) function() (f devlink.Function, wants bool) {
	if p.RoCE != nil {
		f.Caps = devlink.Caps{Known: devlink.CapRoCE}
		if *p.RoCE {
			f.Caps.Enabled = devlink.CapRoCE
		}
	}
	if p.MaxIOEQs != 0 {
		f.MaxIOEQs = &p.MaxIOEQs
	}
	return f, f.Caps.Known != 0 || f.MaxIOEQs != nil
}

// possible refuses what the pool wants of an SF and what the kernel does not tell of it, nor takes.
func (p *Pool) possible(f Function, is *devlink.Function) error {
	const silent = "neither the driver nor this kernel has it"
	switch {
	case p.RoCE != nil && (is == nil || is.Caps.Known&devlink.CapRoCE == 0):
		return unsupported(f, attributeRoCE, silent)
	case p.MaxIOEQs != 0 && (is == nil || is.MaxIOEQs == nil):
		return unsupported(f, attributeMaxIOEQs, silent)
	}
	return nil
}

// differs says what of an SF is not as the pool wants it; false: nothing.
func (p *Pool) differs(is *devlink.Function) (difference, bool) {
	if is == nil {
		is = &devlink.Function{}
	}
	if p.RoCE != nil {
		on := is.Caps.Known&is.Caps.Enabled&devlink.CapRoCE != 0
		if is.Caps.Known&devlink.CapRoCE == 0 || on != *p.RoCE {
			return difference{attributeRoCE, onOff(*p.RoCE), onOff(on)}, true
		}
	}
	if p.MaxIOEQs != 0 && (is.MaxIOEQs == nil || *is.MaxIOEQs != p.MaxIOEQs) {
		return difference{attributeMaxIOEQs, fmt.Sprint(p.MaxIOEQs), fmt.Sprint(show(is.MaxIOEQs))}, true
	}
	return difference{}, false
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

const (
	// DefaultFirstSF is the lowest sfnum of a pool that does not say another. Those below are left to people.
	DefaultFirstSF = 100

	maxSFs = 4096 // of a pool; NICs have some hundred for each PF
	maxVFs = 1 << 16
)

// Check returns the pools with defaults filled in, sorted by name, and refuses those that cannot be.
func Check(pools []Pool) ([]Pool, error) {
	pools = slices.Clone(pools)
	slices.SortStableFunc(pools, func(a, b Pool) int { return cmp.Compare(a.Name, b.Name) })
	for i := range pools {
		p := &pools[i]
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("device pool %q: %w", p.Name, err)
		}
		for _, o := range pools[:i] {
			if err := p.excludes(o); err != nil {
				return nil, fmt.Errorf("device pool %q: %w", p.Name, err)
			}
		}
	}
	return pools, nil
}

func (p *Pool) check() error {
	if !isName(p.Name) {
		return fmt.Errorf("name: not of lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends")
	}
	if strings.Contains(p.Device, "/") {
		if _, err := devlink.ParseHandle(p.Device); err != nil {
			return fmt.Errorf("device: %w", err)
		}
	} else if p.Device == "" || len(p.Device) > 15 || strings.ContainsFunc(p.Device, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
		return fmt.Errorf("device %q: neither a handle, as pci/0000:03:00.0, nor the name of a network device", p.Device)
	}
	switch p.Kind {
	case VF:
		if p.PF != 0 || p.FirstSF != nil || p.MinWarm != 0 || p.MaxWarm != 0 || p.Max != 0 || p.RoCE != nil || p.MaxIOEQs != 0 {
			return fmt.Errorf("pf, first_sf, min_warm, max_warm, max, roce and max_io_eqs are for SFs")
		}
		if _, err := parseNumbers(p.VFs); err != nil {
			return fmt.Errorf("vfs: %w", err)
		}
		return nil
	case SF:
	default:
		return fmt.Errorf("kind %q: neither vf nor sf", p.Kind)
	}
	if p.VFs != "" {
		return fmt.Errorf("vfs is for VFs")
	}
	if p.FirstSF == nil {
		p.FirstSF = new(uint32(DefaultFirstSF))
	}
	if p.MaxWarm == 0 {
		p.MaxWarm = p.MinWarm
	}
	switch {
	case p.Max < 1 || p.Max > maxSFs:
		return fmt.Errorf("max %d: not between 1 and %d", p.Max, maxSFs)
	case p.MinWarm < 0 || p.MaxWarm < p.MinWarm || p.Max < p.MaxWarm:
		return fmt.Errorf("min_warm %d, max_warm %d, max %d: have to grow in this order", p.MinWarm, p.MaxWarm, p.Max)
	case uint64(*p.FirstSF)+2*uint64(p.Max) > math.MaxUint32:
		return fmt.Errorf("first_sf %d: too large", *p.FirstSF)
	}
	return nil
}

// numbers are the sfnums of a pool of SFs: twice as many as it may have, so that each rests before it is taken again.
func (p *Pool) numbers() span { return span{*p.FirstSF, *p.FirstSF + 2*uint32(p.Max) - 1} }

// excludes refuses two pools that may be of the same function. They are told apart by how they name their device.
func (p *Pool) excludes(o Pool) error {
	if p.Name == o.Name {
		return fmt.Errorf("there are two of this name")
	}
	if p.Kind != o.Kind || p.Device != o.Device {
		return nil
	}
	if p.Kind == SF {
		a, b := p.numbers(), o.numbers()
		if p.PF == o.PF && a.first <= b.last && b.first <= a.last {
			return fmt.Errorf("its sfnums from %d to %d are also those of %q: choose first_sf so that they differ", a.first, a.last, o.Name)
		}
		return nil
	}
	if p.VFs == "" && o.VFs == "" {
		return fmt.Errorf("it and %q both take all VFs that no other pool names", o.Name)
	}
	mine, _ := parseNumbers(p.VFs)
	others, _ := parseNumbers(o.VFs)
	for _, m := range mine {
		for _, n := range others {
			if m.first <= n.last && n.first <= m.last {
				return fmt.Errorf("VF %d is also in %q", max(m.first, n.first), o.Name)
			}
		}
	}
	return nil
}

// isName reports whether s can be part of the name of a Kubernetes resource.
func isName(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
}

// A span is the numbers from first to last.
type span struct{ first, last uint32 }

// parseNumbers reads numbers and ranges with commas between them; "" is none.
func parseNumbers(s string) ([]span, error) {
	if s == "" {
		return nil, nil
	}
	var all []span
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 32)
		last, err2 := strconv.ParseUint(to, 10, 32)
		if err1 != nil || err2 != nil || first > last || last >= maxVFs {
			return nil, fmt.Errorf("%q: neither a number nor a range, as 0-7", part)
		}
		all = append(all, span{uint32(first), uint32(last)})
	}
	return all, nil
}

func contains(all []span, n uint32) bool {
	return slices.ContainsFunc(all, func(s span) bool { return s.first <= n && n <= s.last })
}

// shortage is how many SFs a pool should make in advance, and surplus how many of those that are free it should remove. Of total there
// are free ones, and coming ones that will be free.
func (p *Pool) shortage(free, coming, total int) int {
	return max(0, min(p.MinWarm-free-coming, p.Max-total))
}

func (p *Pool) surplus(free int) int { return max(0, free-p.MaxWarm) }
