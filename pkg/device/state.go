package device

//go:generate go test -run=TestDocument -update .

// An event is what moves a function from one state to another.
type event string

const (
	appears    event = "appears"    // there is a port of the eswitch for it
	vanishes   event = "vanishes"   // there is none any more
	ready      event = "ready"      // an SF that is being made has its network device
	acquired   event = "acquired"   // somebody gets it
	claimed    event = "claimed"    // somebody has it since before the start
	released   event = "released"   // its owner gives it back
	reconciled event = "reconciled" // all who have something have claimed it
	verified   event = "verified"   // it is as it was
	refused    event = "refused"    // it is not, or something with it did not come to an end
	retried    event = "retried"    // verify it again
	removed    event = "removed"    // delete it
)

// nowhere is the state of a function that there is no account of.
const nowhere State = ""

// transitions are all moves that there are. Where a function appears, and of whom it is free, depends on whether it is a pool's: see
// home.
var transitions = map[State]map[event]State{
	nowhere:     {appears: Unknown, claimed: Gone},
	Unknown:     {claimed: Used, reconciled: Resetting, removed: Removing, vanishes: nowhere},
	Warming:     {ready: Free, acquired: Used, refused: Quarantined, vanishes: nowhere},
	Free:        {acquired: Used, refused: Quarantined, removed: Removing, vanishes: nowhere},
	Used:        {released: Resetting, vanishes: Gone},
	Resetting:   {verified: Free, refused: Quarantined, vanishes: nowhere},
	Quarantined: {retried: Resetting, removed: Removing, vanishes: nowhere},
	Removing:    {refused: Quarantined, vanishes: nowhere},
	Gone:        {appears: Used, released: nowhere},
	Unmanaged:   {claimed: Used, vanishes: nowhere},
}

// next is where an event leads from a state; false if it cannot happen there.
func next(s State, e event) (State, bool) {
	to, ok := transitions[s][e]
	return to, ok
}

// home is where a function is instead of Free or Unknown if it is of no pool.
func home(s State, pooled bool) State {
	if !pooled && (s == Free || s == Unknown) {
		return Unmanaged
	}
	return s
}
