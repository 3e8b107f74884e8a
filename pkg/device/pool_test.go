package device

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	const h = "pci/0000:03:00.0"
	for _, tt := range []struct {
		name  string
		pools []Pool
		says  string // "": it is accepted
	}{
		{"none", nil, ""},
		{"VFs by a netdev", []Pool{{Name: "a", Device: "ens1f0", Kind: VF}}, ""},
		{"some VFs, and the others", []Pool{{Name: "a", Device: h, Kind: VF, VFs: "0-3, 7"}, {Name: "b", Device: h, Kind: VF}}, ""},
		{"SFs of two PFs", []Pool{{Name: "a", Device: h, Kind: SF, Max: 8}, {Name: "b", Device: h, Kind: SF, PF: 1, Max: 8}}, ""},
		{"SFs with other numbers", []Pool{{Name: "a", Device: h, Kind: SF, Max: 8}, {Name: "b", Device: h, Kind: SF, Max: 8, FirstSF: new(uint32(116))}}, ""},
		{"no name", []Pool{{Device: h, Kind: VF}}, "name: not of"},
		{"a name in upper case", []Pool{{Name: "A", Device: h, Kind: VF}}, "name: not of"},
		{"twice a name", []Pool{{Name: "a", Device: h, Kind: VF}, {Name: "a", Device: "ens1f0", Kind: VF}}, "two of this name"},
		{"no device", []Pool{{Name: "a", Kind: VF}}, "neither a handle"},
		{"half a handle", []Pool{{Name: "a", Device: "pci/", Kind: VF}}, "device: "},
		{"no kind", []Pool{{Name: "a", Device: h}}, "neither vf nor sf"},
		{"watermarks of VFs", []Pool{{Name: "a", Device: h, Kind: VF, MinWarm: 1}}, "are for SFs"},
		{"RoCE of VFs", []Pool{{Name: "a", Device: h, Kind: VF, RoCE: new(false)}}, "are for SFs"},
		{"event queues of VFs", []Pool{{Name: "a", Device: h, Kind: VF, MaxIOEQs: 4}}, "are for SFs"},
		{"SFs that are set", []Pool{{Name: "a", Device: h, Kind: SF, Max: 8, RoCE: new(false), MaxIOEQs: 4}}, ""},
		{"VFs of SFs", []Pool{{Name: "a", Device: h, Kind: SF, Max: 1, VFs: "1"}}, "is for VFs"},
		{"a range that goes down", []Pool{{Name: "a", Device: h, Kind: VF, VFs: "3-1"}}, "neither a number nor a range"},
		{"no maximum", []Pool{{Name: "a", Device: h, Kind: SF}}, "max 0: not between"},
		{"watermarks that go down", []Pool{{Name: "a", Device: h, Kind: SF, MinWarm: 4, MaxWarm: 2, Max: 8}}, "have to grow"},
		{"more warm than there may be", []Pool{{Name: "a", Device: h, Kind: SF, MinWarm: 9, Max: 8}}, "have to grow"},
		{"sfnums that are too large", []Pool{{Name: "a", Device: h, Kind: SF, Max: 8, FirstSF: new(^uint32(0))}}, "too large"},
		{"a VF in two", []Pool{{Name: "a", Device: h, Kind: VF, VFs: "0-3"}, {Name: "b", Device: h, Kind: VF, VFs: "3"}}, `VF 3 is also in "a"`},
		{"two that take the rest", []Pool{{Name: "a", Device: h, Kind: VF}, {Name: "b", Device: h, Kind: VF}}, "both take all VFs"},
		{"sfnums in two", []Pool{{Name: "a", Device: h, Kind: SF, Max: 8}, {Name: "b", Device: h, Kind: SF, Max: 8, FirstSF: new(uint32(115))}}, `from 115 to 130 are also those of "a"`},
	} {
		got, err := Check(tt.pools)
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%s: Check = %v", tt.name, err)
		case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: Check = %v, want an error that says %q", tt.name, err, tt.says)
		}
		for _, p := range got {
			if p.Kind == SF && (p.FirstSF == nil || p.MaxWarm < p.MinWarm) {
				t.Errorf("%s: Check = %+v, without defaults", tt.name, p)
			}
		}
	}
}

// Filling and removing do not chase each other, and neither goes over a bound.
func TestWatermarks(t *testing.T) {
	for minWarm := range 4 {
		for maxWarm := minWarm; maxWarm < 5; maxWarm++ {
			for most := max(1, maxWarm); most < 7; most++ {
				p := Pool{MinWarm: minWarm, MaxWarm: maxWarm, Max: most}
				for free := range most + 1 {
					for used := range most - free + 1 {
						more, less := p.shortage(free, 0, free+used), p.surplus(free)
						left := free + more - less
						if more > 0 && less > 0 || free+used+more > most || left > maxWarm || left < minWarm && free+used+more < most {
							t.Errorf("%+v with %d free and %d used: %d more, %d less", p, free, used, more, less)
						}
					}
				}
			}
		}
	}
}
