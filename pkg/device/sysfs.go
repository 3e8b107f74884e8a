package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/devlink"
)

// A sysfs is the door to sysfs(5), by the directory where it is mounted.
type sysfs string

func (s sysfs) device(h devlink.Handle) string {
	return filepath.Join(string(s), "bus", h.Bus, "devices", h.Dev)
}

// number reads a file that has one.
func number(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// optional is a number that a driver need not have.
func optional(path string, otherwise int) (int, error) {
	n, err := number(path)
	if errors.Is(err, fs.ErrNotExist) {
		return otherwise, nil
	}
	return n, err
}

// nic reads what there is of a device. While its VFs are being made or removed that waits for the driver.
func (s sysfs) nic(h devlink.Handle) (sysfsNIC, error) {
	dir := s.device(h)
	n := sysfsNIC{virtfns: map[uint32]devlink.Handle{}, numbers: map[devlink.Handle]uint32{}}
	var errs [3]error
	n.numa, errs[0] = optional(filepath.Join(dir, "numa_node"), -1)
	n.total, errs[1] = optional(filepath.Join(dir, "sriov_totalvfs"), 0)
	n.vfs, errs[2] = optional(filepath.Join(dir, "sriov_numvfs"), 0)
	if err := errors.Join(errs[:]...); err != nil {
		return n, fmt.Errorf("device sysfs %v: %w", h, err)
	}
	for i := range n.vfs {
		to, err := os.Readlink(filepath.Join(dir, fmt.Sprintf("virtfn%d", i)))
		if err != nil {
			continue // it is coming or going, of which an event tells
		}
		f := devlink.Handle{Bus: h.Bus, Dev: filepath.Base(to)}
		n.virtfns[uint32(i)], n.numbers[f] = f, uint32(i)
	}
	return n, nil
}

// rdma reads which RDMA device a function has in the host's network namespace; "": none.
func (s sysfs) rdma(f Function) (string, error) {
	names, err := os.ReadDir(filepath.Join(s.device(devlink.Handle{Bus: f.Bus, Dev: f.Device}), "infiniband"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("device sysfs: %w", err)
	case len(names) == 0: // it is in another namespace
		return "", nil
	}
	return names[0].Name(), nil
}

// rdmaNodes reads which device nodes below /dev/infiniband programs take for a function's RDMA device, in order: none if it has no RDMA device
// here.
func (s sysfs) rdmaNodes(f Function) ([]string, error) {
	var all []string
	for _, class := range []string{"infiniband_verbs", "infiniband_mad"} {
		names, err := os.ReadDir(filepath.Join(s.device(devlink.Handle{Bus: f.Bus, Dev: f.Device}), class))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("device sysfs: %w", err)
		}
		for _, n := range names {
			all = append(all, "/dev/infiniband/"+n.Name())
		}
	}
	if len(all) > 0 { // the connection manager is one for all devices
		if _, err := os.Stat(filepath.Join(string(s), "class", "misc", "rdma_cm")); err == nil {
			all = append(all, "/dev/infiniband/rdma_cm")
		}
	}
	return all, nil
}

const auxiliaryBus = "auxiliary"

// sf reads which SF an auxiliary device is; false if it is none.
func (s sysfs) sf(h devlink.Handle) (sfOf, bool) {
	n, err := number(filepath.Join(s.device(h), "sfnum"))
	if err != nil || n < 0 || h.Bus != auxiliaryBus {
		return sfOf{}, false
	}
	to, err := os.Readlink(s.device(h))
	if err != nil {
		return sfOf{}, false
	}
	return sfOf{parent: filepath.Base(filepath.Dir(to)), number: uint32(n)}, true
}

// sfs reads which auxiliary devices are SFs.
func (s sysfs) sfs() (map[devlink.Handle]sfOf, error) {
	all := map[devlink.Handle]sfOf{}
	names, err := os.ReadDir(filepath.Join(string(s), "bus", auxiliaryBus, "devices"))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("device sysfs: %w", err)
	}
	for _, n := range names {
		h := devlink.Handle{Bus: auxiliaryBus, Dev: n.Name()}
		if sf, ok := s.sf(h); ok {
			all[h] = sf
		}
	}
	return all, nil
}

// setVFs writes the number of VFs, which takes the driver a while: up to half a second for each. It has to go through 0 from one number to
// another.
func (s sysfs) setVFs(h devlink.Handle, n int) error {
	path := s.vfsFile(h)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("device sysfs: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(n))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("device sysfs: write %d to %s: %w", n, path, err)
	}
	return nil
}

func (s sysfs) vfsFile(h devlink.Handle) string {
	return filepath.Join(s.device(h), "sriov_numvfs")
}
