package ledger

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A Claim is which way packets are said to have taken.
type Claim string

// The claims.
const (
	ByHardware Claim = result.ByHardware
	ByFilters  Claim = result.ByFilters
	ByOVS      Claim = result.ByOVS
)

// Share is how much of the packets must have taken the way that is claimed.
const Share = 0.999

// Post enters in the account of a flow what was counted for it, and how many of its packets were sent in that time.
func Post(a *result.Account, sent uint64, c Counts) {
	a.Sent += int64(sent)
	a.Hardware += int64(c.Forwarded.Hardware)
	a.Software += int64(c.Forwarded.Software)
	a.OVS += int64(c.Left.Software)
	a.Dropped += int64(c.Dropped.Hardware + c.Dropped.Software)
	a.Filters, a.InHW = c.Filters, c.InHW
	a.Unexplained = a.Sent - a.Hardware - a.Software - a.OVS - a.Dropped
}

// PostDatapath enters what Open vSwitch's datapath has counted of the packets that come in by a device since the last time, in the accounts of the flows
// of that device: packets counted by its flows, and misses of the whole datapath. Its flows are not of one connection, so packets are divided in
// the order of the accounts: those that it has not counted can only have been sent up, if there were as many misses, and are unexplained otherwise. left
// are the packets of each account that it was left since then. It returns the misses that remain for others.
func PostDatapath(accounts []*result.Account, left []uint64, counted, missed uint64) (rest uint64) {
	total := uint64(0)
	for _, n := range left {
		total += n
	}
	up := total - min(counted, total) // not counted by a flow
	for i, a := range accounts {
		n := min(up, left[i])
		up -= n
		known := min(n, missed)
		missed -= known
		a.Datapath += int64(left[i] - n)
		a.Upcalls += int64(known)
		a.Lost += int64(n - known)
	}
	return missed
}

// Refuse returns why a claim is not to be believed of a flow, "" if it is.
func Refuse(claim Claim, a *result.Account) string {
	share := func(n int64) float64 {
		if a.Sent == 0 {
			return 0
		}
		return float64(n) / float64(a.Sent)
	}
	tell := func(what string, n int64) string {
		return fmt.Sprintf("%s: of %d packets %s %d (%.2f %%)", a.Flow, a.Sent, what, n, 100*share(n))
	}
	switch {
	case a.Sent == 0:
		return fmt.Sprintf("%s: no packets were sent", a.Flow)
	case a.Changed > 0:
		return fmt.Sprintf("%s: its filters have changed %d times meanwhile, and what they had counted is lost", a.Flow, a.Changed)
	case a.Unexplained != 0:
		return fmt.Sprintf("%s: of %d packets %d were counted by nothing (if negative: more were counted than sent)", a.Flow, a.Sent, a.Unexplained)
	case a.Lost > 0:
		return tell("Open vSwitch's datapath was left, and has neither counted nor sent up", a.Lost)
	case claim == ByHardware && share(a.Hardware) < Share:
		return tell("the hardware has forwarded", a.Hardware)
	case claim == ByFilters && share(a.Hardware+a.Software) < Share:
		return tell("filters have forwarded", a.Hardware+a.Software)
	case claim == ByOVS && a.Hardware+a.Software > 0:
		return tell("filters have forwarded", a.Hardware+a.Software)
	case claim == ByOVS && share(a.Datapath+a.Upcalls) < Share:
		return tell("Open vSwitch has had", a.Datapath+a.Upcalls)
	}
	return ""
}
