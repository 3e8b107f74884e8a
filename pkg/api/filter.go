package api

// A FilterKind is what a filter is for. "" is one that is not ours.
type FilterKind string

// The kinds of filters.
const (
	FilterGuard  FilterKind = "guard"
	FilterEntry  FilterKind = "entry"
	FilterRule   FilterKind = "rule"
	FilterEnd    FilterKind = "end"
	FilterClosed FilterKind = "closed"
	FilterProbe  FilterKind = "probe"
)

// A FilterState compares a filter that is wanted with what the kernel has.
type FilterState string

// The states of filters.
const (
	FilterInstalled FilterState = "installed"
	FilterMissing   FilterState = "missing"
	FilterRefused   FilterState = "refused"
	FilterDifferent FilterState = "different" // the kernel has one for the same packets that does something else
	FilterSurplus   FilterState = "surplus"   // ours, and not wanted
	FilterForeign   FilterState = "foreign"
	FilterDelegated FilterState = "delegated" // Open vSwitch has made it, to which offload is delegated
)

// A Filter is a TC filter that is wanted, or that the kernel has.
type Filter struct {
	Chain     uint32
	Pref      uint16 // the smaller is tried first
	Handle    uint32
	Kind      FilterKind
	Device    string // whose packets it is for; "" any
	Text      string // the arguments of tc(8)
	State     FilterState
	Installed string // with FilterDifferent, what the kernel has; with FilterForeign and FilterDelegated, what Text leaves out
	InHW      bool
	NotInHW   string    // why not, by the driver's words; "": it is, or there is no hardware
	Counters  *Counters // without Duration; nil: the kernel does not have it
	Reason    string    // why its packets are left to Open vSwitch; "": they are not
	Rows      []string  // UUIDs
	Error     string    // with FilterRefused
	UFID      string    // of the megaflow, with FilterDelegated
}

// A FilterFilter selects the filters that have everything it names.
type FilterFilter struct {
	Port   string        // logical port or device whose packets can meet them; "" any
	Chain  *uint32       // nil any
	States []FilterState // one of these; none any
}

// A Chain is a chain and what is known in it.
type Chain struct {
	Number    uint32
	Device    string // of chain 0
	OFPort    uint16 // of chain 0
	EtherType uint16
	Table     uint8
	Tracked   bool
	Zone      uint16
	Tunnelled bool
	Known     []string
	Text      string
}

// A ChainVerdict is what becomes of the packets of a rule.
type ChainVerdict string

// The verdicts.
const (
	ChainGoto   ChainVerdict = "goto"
	ChainLookup ChainVerdict = "lookup"
	ChainOutput ChainVerdict = "output"
	ChainDrop   ChainVerdict = "drop"
	ChainPunt   ChainVerdict = "punt"
)

// A ChainRule is a rule of a chain. The first that matches counts.
type ChainRule struct {
	Match       string // as in tc-flower(8); "" any packet
	Verdict     ChainVerdict
	Text        string
	Chain       uint32       // with ChainGoto and ChainLookup
	Zone        uint16       // with ChainLookup
	Device      string       // with ChainOutput
	Reason      string       // with ChainPunt
	Rows        []string     // UUIDs
	LogicalFlow *LogicalFlow // without flows; nil: none leads to it
	NoFilter    bool
	Counters    *Counters // without Duration
}

// A ChainItem is a Chain, or a rule of the one that came last; the other is nil.
type ChainItem struct {
	Chain *Chain
	Rule  *ChainRule
}

// A Punt is why packets are left to Open vSwitch.
type Punt struct {
	Reason      string
	Text, Fix   string       // sentences
	LogicalFlow *LogicalFlow // that decides it, without flows; nil: none does
	Filters     int
	Counters    Counters // without Duration
	Shared      bool     // with other ports
}

// A Refusal is why hardware does not have filters.
type Refusal struct {
	Text     string // the driver's words
	Filters  int
	Counters Counters // without Duration: of packets that went through software because of it, and others
	Example  string   // one of the filters
}

// An ExplainRequest is a port, or a packet that it sends.
type ExplainRequest struct {
	Port      string   // logical port or device
	Microflow string   // "": all packets
	CT        []string // as in TraceRequest
}

// A Layer is where packets are handled.
type Layer string

// The layers, in the order in which packets come there.
const (
	LayerNIC Layer = "nic"
	LayerTC  Layer = "tc"
	LayerOVS Layer = "ovs"
)

// A LayerAnswer is what a layer does with a packet.
type LayerAnswer string

// The answers.
const (
	LayerDecides    LayerAnswer = "decides"
	LayerPasses     LayerAnswer = "passes"
	LayerNotReached LayerAnswer = "not reached"
)

// A LayerVerdict is what becomes of a packet in a layer.
type LayerVerdict struct {
	Layer    Layer
	Answer   LayerAnswer
	Text     string
	Delivers bool
}

// An Explanation is what becomes of a port's packets, or of one.
type Explanation struct {
	Device                     string
	Idle                       string    // why filters handle nothing; "": they do
	Forwarded, Dropped, Punted *Counters // nil with a packet
	Shared                     bool
	Punts                      []Punt
	Refusals                   []Refusal // of filters that the port's packets meet
	InHW                       int       // how many of these filters are in hardware
	Layers                     []LayerVerdict
	Filters                    []Filter

	Delegated     bool // to Open vSwitch: there are no Punts
	Megaflows     []Megaflow
	MegaflowsLeft int // that are not among them
}

// A FilterDifference is between what is wanted and what the kernel has.
type FilterDifference struct {
	Filter *Filter // nil: it is about Device
	Device string  // that should have the block
}

// PortCounters is what filters have counted of a port's packets, without Duration.
type PortCounters struct {
	LogicalPort string // "": the device has none
	Device      string
	From        Counters // not left to Open vSwitch in chain 0
	To          Counters
}
