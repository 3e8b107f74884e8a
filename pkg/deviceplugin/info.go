package deviceplugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// infoDir is where Multus looks for what is known of a device that kubelet has given to a pod, see "Device Information Specification" of the
// Network Plumbing Working Group, version 1.1.0.
const infoDir = "/var/run/k8s.cni.cncf.io/devinfo/dp"

// An info is what is written there. It knows no SFs.
type info struct {
	Type    string  `json:"type"`
	Version string  `json:"version"`
	PCI     infoPCI `json:"pci"`
}

type infoPCI struct {
	Address     string `json:"pci-address"`
	PF          string `json:"pf-pci-address,omitempty"`
	Representor string `json:"representor-device,omitempty"`
	RDMA        string `json:"rdma-device,omitempty"`
}

func (r *server) infoFile(id string) string {
	return filepath.Join(r.plugin.InfoDir, strings.ReplaceAll(r.resource+"-"+id+"-device.json", "/", "-"))
}

// writeInfo writes the file of a VF that a pod gets. Without it the pod works as well.
func (r *server) writeInfo(u unit) {
	f := u.function
	if f.Bus != "pci" {
		return
	}
	i := info{Type: "pci", Version: "1.1.0", PCI: infoPCI{Address: f.Device, Representor: f.Representor.Name}}
	if r.plugin.RDMA != nil {
		i.PCI.RDMA = r.plugin.RDMA(*f)
	}
	if f.Handle.Bus == "pci" {
		i.PCI.PF = f.Handle.Dev
	}
	err := func() error {
		text, err := json.Marshal(i)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(r.plugin.InfoDir, 0o755); err != nil {
			return err
		}
		temp, err := os.CreateTemp(r.plugin.InfoDir, ".offloadd-*")
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(temp.Name()) }()
		if _, err := temp.Write(text); err != nil {
			_ = temp.Close()
			return err
		}
		if err := temp.Chmod(0o444); err != nil {
			_ = temp.Close()
			return err
		}
		if err := temp.Close(); err != nil {
			return err
		}
		return os.Rename(temp.Name(), r.infoFile(u.id))
	}()
	if err != nil {
		r.plugin.Log.Warn("device information not written", "resource", r.resource, "function", f.Device, "err", err)
	}
}

// forgetInfo removes files of functions that the resource no longer has.
func (r *server) forgetInfo() {
	units, _ := r.units()
	var keep []string
	for _, u := range units {
		keep = append(keep, r.infoFile(u.id))
	}
	files, _ := filepath.Glob(r.infoFile("*"))
	for _, f := range files {
		if !slices.Contains(keep, f) {
			_ = os.Remove(f)
		}
	}
}
