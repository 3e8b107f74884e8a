package device

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
}

// DefaultFirstSF is the lowest sfnum of a pool that does not say another. Those below are left to people.
const DefaultFirstSF = 100
