package apply

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// give gives a device the block. A device whose own driver takes no filters, like that of a tunnel, may have it only while none of its filters is in
// hardware (EOPNOTSUPP of tcf_block_offload_bind): then they are withdrawn for a while.
func (f *Filters) give(ctx context.Context, d specialize.Device, indexes map[string]int, hardware bool) error {
	err := f.conn.EnsureClsact(ctx, d.Ifindex, Block)
	if _, futile := f.futile[d.Ifindex]; !hardware || futile || !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if err := f.withdraw(ctx, indexes); err != nil {
		return err
	}
	if err = f.conn.EnsureClsact(ctx, d.Ifindex, Block); err != nil {
		f.futile[d.Ifindex] = struct{}{}
	}
	return err
}

// withdraw leaves all filters to the software, where they do the same, until the next plan.
func (f *Filters) withdraw(ctx context.Context, indexes map[string]int) error {
	f.unsure = true
	if _, err := f.look(ctx, nil); err != nil {
		return err
	}
	var ops []tc.Op
	for _, g := range slices.Backward(f.table.list()) { // those that are tried last go first
		if f.hardware.counts[g.Key()] > 0 {
			g.Flags = g.Flags&^(tc.InHW|tc.NotInHW) | tc.SkipHW
			ops = append(ops, tc.ReplaceOp(&g))
		}
	}
	f.log.Info("filters withdrawn from hardware, so that a device can join them", "filters", len(ops))
	f.unsure = true
	return f.apply(ctx, ops, indexes)
}
