package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// watchCommand shows the pairs of ports that are measured all the time.
func (p *prober) watchCommand() *cobra.Command {
	once := false
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "show the pairs of ports that are measured all the time, and how they are, until interrupted",
		Long: `Show the pairs of ports that are measured all the time, as continuous_probe in the daemon's configuration says: those whose requests or answers this node
sends. Of answers only the way is known that they take from here. CONNECTION is what the connection tracker has in the zones of the two ports.

Counts are since the daemon started, percentiles of the last 20 minutes, as far as there are enough requests: 20 for P50, 1000 for P99. What was
lost is behind all that was answered.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.local {
				return usageError{errors.New("probe watch: without a daemon nothing is measured all the time")}
			}
			err := p.c.stream(cmd.Context(), func(d daemon) error {
				stream, err := d.monitor.WatchPairs(d.ctx, &offloadv1.WatchPairsRequest{})
				if err != nil {
					return client.Error(err)
				}
				n := 0
				err = received(stream.Recv, func(r *offloadv1.WatchPairsResponse) error {
					if n++; once {
						return errors.Join(p.pairs(r, 1), errEnough)
					}
					return p.pairs(r, n)
				})
				if errors.Is(err, errEnough) {
					return nil
				}
				return err
			})
			if cmd.Context().Err() != nil {
				return nil // it was interrupted, as it is meant to be
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "show them once")
	return cmd
}

// errEnough ends a stream of which no more is wanted.
var errEnough = errors.New("enough")

// pairs shows an answer, the nth.
func (p *prober) pairs(r *offloadv1.WatchPairsResponse, n int) error {
	c := p.c
	switch {
	case c.structured():
		return c.printEvent(r)
	case c.live && c.width > 0:
		fmt.Fprint(c.stdout, "\x1b[H\x1b[J") // CUP and ED of ECMA-48: from the top of an empty screen
	case n > 1:
		fmt.Fprintln(c.stdout)
	}
	l := newList(c, "ProbePairList", c.pairColumns())
	err := printed(l, r.GetPairs())
	if r.GetAnswered()+r.GetRefused() > 0 {
		fmt.Fprintf(c.stdout, "Requests of others: %d answered, %d refused\n", r.GetAnswered(), r.GetRefused())
	}
	return err
}

func (c *cli) pairColumns() []column[*offloadv1.ProbePair] {
	type pair = *offloadv1.ProbePair
	count := func(of func(pair) uint64) func(pair) string {
		return func(p pair) string {
			if p.GetAnswers() { // who asks counts them
				return "-"
			}
			return fmt.Sprint(of(p))
		}
	}
	percentile := func(percent float64) func(pair) string {
		return func(p pair) string {
			for _, q := range p.GetPercentiles() {
				switch {
				case q.GetPercent() != percent:
				case q.GetValue() == nil:
					return "lost"
				default:
					return micros(q.GetValue().AsDuration())
				}
			}
			return "-"
		}
	}
	return []column[pair]{
		{name: "FROM", value: pair.GetFrom},
		{name: "TO", value: pair.GetTo},
		{name: "PACKETS", value: func(p pair) string { return choose(p.GetAnswers(), "answers", "requests") }},
		{name: "CHASSIS", value: func(p pair) string { return cmp.Or(p.GetChassis(), "-") }},
		{name: "SENT", value: count(pair.GetSent)},
		{name: "LOST", value: count(pair.GetLost), style: func(p pair) style { return choose(p.GetRecentLost() > 0, red, plain) }},
		{name: "LATE", wide: true, value: count(pair.GetLate)},
		{name: "MISSED", wide: true, value: count(pair.GetMissed)},
		{name: "HELD", wide: true, value: count(pair.GetHeld)},
		{name: "P50", value: percentile(50)},
		{name: "P90", wide: true, value: percentile(90)},
		{name: "P99", value: percentile(99)},
		{name: "MAX", value: func(p pair) string {
			if p.GetMax() == nil {
				return "-"
			}
			return micros(p.GetMax().AsDuration())
		}},
		{name: "OFFLOADED", value: func(p pair) string {
			if p.GetLevel() == offloadv1.OffloadLevel_OFFLOAD_LEVEL_UNSPECIFIED {
				return "-"
			}
			if p.GetLevel() == offloadv1.OffloadLevel_OFFLOAD_LEVEL_HARDWARE {
				return fmt.Sprintf("%.0f %% (NIC)", 100*p.GetHardware())
			}
			return fmt.Sprintf("%.0f %%", 100*p.GetFilters())
		}},
		{name: "CONNECTION", value: func(p pair) string { return connectionState(p.GetConnection()) }},
		{name: "SINCE", value: func(p pair) string { return age(c.now().Sub(p.GetSince().AsTime())) }},
		{
			name: "STATE",
			value: func(p pair) string {
				return choose(p.GetReason() == "", "well", p.GetReason())
			},
			style: func(p pair) style {
				return choose(p.GetReason() == "", green, choose(p.GetMeasured() || p.GetAnswers(), red, plain))
			},
		},
		{name: "MESSAGE", wide: true, value: func(p pair) string { return cmp.Or(p.GetMessage(), p.GetWhy(), "-") }},
	}
}

// connectionState is the best that the connection tracker says of all zones, or of how many.
func connectionState(c *offloadv1.ProbeConnection) string {
	if c.GetZones() == 0 {
		return "-"
	}
	for _, s := range []struct {
		zones uint32
		word  string
	}{{c.GetHwOffload(), "HW_OFFLOAD"}, {c.GetOffload(), "OFFLOAD"}, {c.GetAssured(), "ASSURED"}} {
		switch {
		case s.zones >= c.GetZones():
			return s.word
		case s.zones > 0:
			return fmt.Sprintf("%s %d/%d", s.word, s.zones, c.GetZones())
		}
	}
	return "NEW"
}

// micros is a duration in microseconds.
func micros(d time.Duration) string { return fmt.Sprintf("%.1fus", float64(d)/1e3) }
