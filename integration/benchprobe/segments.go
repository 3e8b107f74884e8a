package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// onSegments looks at what is between the devices of both ends by the kernel's timestamps, in sessions of their own: how much that differs from session to session, and between twins.
func onSegments(ctx context.Context, o options, out io.Writer) error {
	const (
		sessions = 10
		spread   = 0.03 // of the median
		apart    = 20   // nanoseconds between twins
	)
	c := campaign{options: o, segments: true, wants: []path.Want{
		{Kind: "metal", Twin: true}, {Kind: "routed", Twin: true}, {Kind: "flannel-vxlan", Twin: true},
	}}
	values := map[string][]float64{}
	var names []result.Path
	for i := range sessions {
		measured, paths, err := c.session(ctx, o.seed+uint64(i))
		if err != nil {
			return err
		}
		names = paths
		for _, p := range paths {
			s := measured[p.Name].Segments
			if s == nil {
				return fmt.Errorf("path %s: it has no segments", p.Name)
			}
			values[p.Name] = append(values[p.Name], float64(s.Path))
		}
	}
	fmt.Fprintf(out, "ns from device to device, medians of %d sessions of %v with new devices\n%-20s %8s %8s %8s   %s\n", sessions, o.duration, "path", "least", "median", "most", "twin")
	var failed []error
	for _, p := range names {
		if p.Twin != "" {
			continue
		}
		v, twin := values[p.Name], values[p.Name+"-twin"]
		least, most, mid := v[0], v[0], median(v)
		outside := 0
		for _, x := range v {
			least, most = min(least, x), max(most, x)
			if math.Abs(x-mid) > max(spread*mid, apart) {
				outside++
			}
		}
		d := median(twin) - mid
		fmt.Fprintf(out, "%-20s %8.0f %8.0f %8.0f   %+.0f\n", p.Name, least, mid, most, d)
		if outside > sessions/5 {
			failed = append(failed, fmt.Errorf("path %s: in %d of %d sessions it is more than %.0f %% off", p.Name, outside, sessions, 100*spread))
		}
		if math.Abs(d) > max(apart, spread*mid) {
			failed = append(failed, fmt.Errorf("path %s: its twin differs by %.0f ns", p.Name, d))
		}
	}
	return errors.Join(failed...)
}
