package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// onSegments looks at what is between the devices of both ends by the kernel's timestamps, in sessions of their own, and how much twins differ in it.
func onSegments(ctx context.Context, o options, out io.Writer) error {
	const (
		sessions = 10
		apart    = 20   // nanoseconds between twins
		part     = 0.03 // or so much
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
	fmt.Fprintf(out, "ns from device to device, medians of %d sessions of %v with new devices; what the machine does moves both twins\n%-15s %7s %7s %7s   %s\n",
		sessions, o.duration, "path", "least", "median", "most", "twin, in the same session: median, most")
	var failed []error
	for _, p := range names {
		if p.Twin != "" {
			continue
		}
		v, twin := values[p.Name], values[p.Name+"-twin"]
		mid := median(v)
		bound := max(apart, part*mid)
		var pairs []float64
		outside, most := 0, 0.0
		for i := range v {
			d := twin[i] - v[i]
			pairs = append(pairs, d)
			most = max(most, math.Abs(d))
			if math.Abs(d) > bound {
				outside++
			}
		}
		fmt.Fprintf(out, "%-15s %7.0f %7.0f %7.0f   %+.0f, %.0f\n", p.Name, slices.Min(v), mid, slices.Max(v), median(pairs), most)
		if math.Abs(median(pairs)) > bound || outside > sessions/5 {
			failed = append(failed, fmt.Errorf("path %s: in %d of %d sessions its twin differs by more than %.0f ns, in the median by %+.0f", p.Name, outside, sessions, bound, median(pairs)))
		}
	}
	return errors.Join(failed...)
}
