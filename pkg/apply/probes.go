package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// RemoveProbes removes the filters by which probes count packets, and returns how many there were. It is for when there is no daemon: all others
// stay, since nobody knows what is wanted, but these are wanted only as long as somebody counts with them.
//
// The last of a chain go first: then what remains does at any moment what is done without it, so that only packets which a probe had left to Open vSwitch
// take another way.
func RemoveProbes(ctx context.Context, c *tc.Conn) (removed int, err error) {
	block := tc.Target{Block: Block}
	keys, err := probeKeys(ctx, c, block)
	if err != nil {
		return 0, err
	}
	slices.SortFunc(keys, func(a, b tc.Key) int { return cmp.Or(cmp.Compare(b.Pref, a.Pref), compareFilterKeys(a, b)) })
	for len(keys) > 0 {
		n := slices.IndexFunc(keys, func(k tc.Key) bool { return k.Pref != keys[0].Pref })
		if n < 0 {
			n = len(keys)
		}
		var ops []tc.Op
		for _, k := range keys[:n] {
			ops = append(ops, tc.DeleteOp(k))
		}
		keys = keys[n:]
		refused, err := c.Apply(ctx, block, ops)
		removed += len(ops) - len(refused)
		if err != nil {
			return removed, err
		}
		for i := range refused {
			// ENOENT and EINVAL: it is gone already, or its chain is.
			if r := &refused[i]; !errors.Is(r.Err, unix.ENOENT) && !errors.Is(r.Err, unix.EINVAL) {
				return removed, fmt.Errorf("apply: a probe's filters are not removed: %w", r)
			}
		}
	}
	return removed, nil
}

// probeKeys lists them.
func probeKeys(ctx context.Context, c *tc.Conn, block tc.Target) (keys []tc.Key, err error) {
	const tries = 5
	for range tries {
		keys = nil
		err = c.Dump(ctx, block, tc.DumpOptions{Terse: true}, func(in *tc.Installed) error {
			if specialize.KindOf(in.Filter.Cookie) == specialize.KindProbe {
				keys = append(keys, in.Filter.Key())
			}
			return nil
		})
		if !errors.Is(err, tc.ErrInterrupted) {
			break
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) { // a kernel without TC
		return nil, nil
	}
	return keys, err
}
