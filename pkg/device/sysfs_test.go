package device

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/devlink"
)

// The device nodes are those of the function's own RDMA device; the one of the connection manager comes with them.
func TestRDMANodes(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{
		"bus/pci/devices/0000:03:00.2/infiniband_verbs/uverbs4", "bus/pci/devices/0000:03:00.2/infiniband_mad/issm4", "bus/pci/devices/0000:03:00.2/infiniband_mad/umad4",
		"bus/pci/devices/0000:03:00.3/infiniband", "bus/auxiliary/devices/mlx5_core.sf.4/infiniband_verbs/uverbs5", "class/misc/rdma_cm",
	} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	check := func(bus, name string, want ...string) {
		t.Helper()
		f := Function{Bus: bus, Device: name}
		if got, err := sysfs(dir).rdmaNodes(f); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: %q, %v, want %q", devlink.Handle{Bus: bus, Dev: name}, got, err, want)
		}
	}
	const cm = "/dev/infiniband/rdma_cm"
	check("pci", "0000:03:00.2", "/dev/infiniband/uverbs4", "/dev/infiniband/issm4", "/dev/infiniband/umad4", cm)
	check("pci", "0000:03:00.3")
	check("pci", "0000:03:00.9")
	check("auxiliary", "mlx5_core.sf.4", "/dev/infiniband/uverbs5", cm)
	if err := os.Remove(filepath.Join(dir, "class/misc/rdma_cm")); err != nil {
		t.Fatal(err)
	}
	check("auxiliary", "mlx5_core.sf.4", "/dev/infiniband/uverbs5")
}
