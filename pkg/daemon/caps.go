package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// probeKernel finds out what the kernel can do for filters, and logs what it cannot. If it cannot be found out nothing is known, and
// the kernel will say no to what it does not like.
func probeKernel(ctx context.Context, log *slog.Logger) tc.Caps {
	c, err := tc.Probe(ctx)
	if err != nil {
		if ctx.Err() == nil {
			log.Warn("kernel not probed", "err", err)
		}
		return tc.Caps{}
	}
	var missing []string
	for _, f := range c.Missing() {
		missing = append(missing, f.Name)
		log.Debug("kernel lacks capability", "capability", f.Name, "words", f.Words, "cost", f.Cost, "fix", f.Fix)
	}
	log.Info("kernel probed", "release", c.Release, "missing", strings.Join(missing, " "))
	return c
}

// likeMLX5 are the drivers that take filters as mlx5 does, that of NVIDIA's NICs from ConnectX-4 on: it, and that of the simulated NIC of our
// tests, whose chains are to be those of the real one.
var likeMLX5 = []string{"mlx5_core", "simnic"}

// shape returns what the chains depend on of kernel and devices.
func shape(kernel *tc.Caps, drivers []string) specialize.Caps {
	c := specialize.Caps{NoFrag: kernel.Has(tc.CapNoFrag)}
	for _, d := range drivers {
		if slices.Contains(likeMLX5, d) {
			c.TunnelKeysInEveryChain, c.WholeLabel = true, true
		}
	}
	return c
}

// drivers returns the drivers of devices; virtual devices have none.
func drivers(devices []specialize.Device) []string {
	var all []string
	for _, d := range devices {
		if link, err := os.Readlink(filepath.Join("/sys/class/net", d.Name, "device/driver")); err == nil {
			all = append(all, filepath.Base(link))
		}
	}
	return all
}
