package report

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

const breakEvenHead = "from which packet on, with its answer, a connection is cheaper than on the baseline in all that it has taken, by time and by CPU; " +
	"and what it takes more, us: its first packets in all, and then each further one"

// breakEvens are a row each.
func breakEvens(p *result.Ports) []column {
	col := func(name string, weight int, cell func(*result.BreakEven) string) column {
		c := column{name: name, weight: weight}
		for i := range p.BreakEvens {
			c.cells = append(c.cells, cell(&p.BreakEvens[i]))
		}
		return c
	}
	name := col("connections", 0, func(b *result.BreakEven) string { return b.Before + ", " + b.Path })
	of := col("by", 0, func(b *result.BreakEven) string { return b.Of })
	from := col("cheaper", 0, func(b *result.BreakEven) string {
		switch {
		case b.Verdict != result.FromPacket:
			return b.Verdict
		case b.From == 1:
			return "from the first packet"
		default:
			return fmt.Sprintf("from #%d", b.From)
		}
	})
	within := col("[95 %]", 4, func(b *result.BreakEven) string {
		if b.Low == 0 {
			return ""
		}
		return fmt.Sprintf("[#%d,#%d]", b.Low, b.High)
	})
	name.left, of.left, from.left, within.left = true, true, true, true
	return []column{
		name, col("n", 2, func(b *result.BreakEven) string { return fmt.Sprint(b.Connections) }), of, from, within,
		col("octets", 3, func(b *result.BreakEven) string {
			if b.Octets == 0 {
				return "-"
			}
			return fmt.Sprint(b.Octets)
		}),
		col("first", 1, func(b *result.BreakEven) string {
			if b.Connections == 0 {
				return "-"
			}
			return fmt.Sprintf("%s in %d", delta(b.First), b.Packets)
		}),
		col("then each", 0, func(b *result.BreakEven) string {
			if b.Then.Sessions == 0 {
				return "~"
			}
			return delta(b.Then.Difference) + " " + mark(b.Then)
		}),
	}
}

// breakEvenWhys say why there are numbers or intervals missing.
func breakEvenWhys(p *result.Ports) (all []string) {
	for _, b := range p.BreakEvens {
		switch {
		case b.Why != "":
			all = append(all, fmt.Sprintf("%s, %s, %s: %s: %s", b.Before, b.Path, b.Of, b.Verdict, b.Why))
		case b.Low == 0:
			all = append(all, fmt.Sprintf("%s, %s, %s: %s are too few for an interval", b.Before, b.Path, b.Of, plural(b.Connections, "connection")))
		}
	}
	return all
}
