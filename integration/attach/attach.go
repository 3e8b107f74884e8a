// Package attach gives pods of a lab their interfaces as a container runtime does: cnitool calls CNI plugins.
package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/integration/lab"
)

// packages are where the programs come from; those of others are built in the module tools/cni.
var packages = map[string]string{
	"offload-cni": "./cmd/offload-cni",
	"cnitool":     "github.com/containernetworking/cni/cnitool",
	"bandwidth":   "github.com/containernetworking/plugins/plugins/meta/bandwidth",
	"host-local":  "github.com/containernetworking/plugins/plugins/ipam/host-local",
	"portmap":     "github.com/containernetworking/plugins/plugins/meta/portmap",
	"tuning":      "github.com/containernetworking/plugins/plugins/meta/tuning",
}

// Build builds cnitool, offload-cni and reference plugins from this source tree and the module cache into a new directory below
// dir, which it returns: a CNI_PATH.
func Build(ctx context.Context, dir string, plugins ...string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("attach build: go env: %w", err)
	}
	path := filepath.Join(dir, "cni")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", fmt.Errorf("attach build: %w", err)
	}
	ours, others := []string{"build", "-o", path + "/"}, []string{"build", "-modfile=tools/cni/go.mod", "-o", path + "/"}
	for _, name := range append([]string{"offload-cni", "cnitool"}, plugins...) {
		pkg, ok := packages[name]
		switch {
		case !ok:
			return "", fmt.Errorf("attach build: no package for %q", name)
		case strings.HasPrefix(pkg, "./"):
			ours = append(ours, pkg)
		default:
			others = append(others, pkg)
		}
	}
	for _, args := range [][]string{ours, others} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = filepath.Dir(strings.TrimSpace(string(root)))
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("attach build: go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return path, nil
}

// A Network is a list of plugins on a node.
type Network struct {
	Name string // unique on this machine, for cnitool keeps what it did by this name

	node *lab.Node
	path string // CNI_PATH
	conf string // NETCONFPATH
}

// NewNetwork writes the configuration of a network. The first plugin makes the interface; plugins are JSON objects. In offload-cni's,
// the socket of the node's daemon is added.
func NewNetwork(n *lab.Node, path, name string, plugins ...string) (*Network, error) {
	net := &Network{Name: n.Netns() + "-" + name, node: n, path: path, conf: filepath.Join(n.Dir, "net.d-"+name)}
	list := struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}{CNIVersion: "1.1.0", Name: net.Name}
	for _, text := range plugins {
		var p map[string]any
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return nil, fmt.Errorf("attach network %s: %s: %w", name, text, err)
		}
		if p["type"] == "offload-cni" {
			p["socket"] = Socket(n)
		}
		list.Plugins = append(list.Plugins, p)
	}
	out, err := json.Marshal(list)
	if err == nil {
		err = errors.Join(os.MkdirAll(net.conf, 0o755), os.WriteFile(filepath.Join(net.conf, "10.conflist"), out, 0o644))
	}
	if err != nil {
		return nil, fmt.Errorf("attach network %s: %w", name, err)
	}
	return net, nil
}

// Socket is where the node's offloadd listens.
func Socket(n *lab.Node) string { return filepath.Join(n.Dir, "offloadd.sock") }

// Netns is the path of a namespace that ip-netns(8) knows by name.
func Netns(name string) string { return "/run/netns/" + name }

// Do runs cnitool: verb is add, check, del, gc or status. args are what it passes on as CNI_ARGS, like LogicalPort=web1; env
// is added to its environment. It returns what cnitool prints.
func (net *Network) Do(ctx context.Context, verb, netns, args string, env ...string) (string, error) {
	argv := append([]string{"env", "CNI_PATH=" + net.path, "NETCONFPATH=" + net.conf}, env...)
	if args != "" {
		argv = append(argv, "CNI_ARGS="+args)
	}
	return net.node.Exec(ctx, append(argv, filepath.Join(net.path, "cnitool"), verb, net.Name, Netns(netns))...)
}

// AddPod makes a pod whose interface is made by the network's plugins, for the logical port of the pod's name.
func (net *Network) AddPod(ctx context.Context, c lab.PodConfig) (*lab.Pod, error) {
	c.Bare = true
	p, err := net.node.AddPod(ctx, c)
	if err != nil {
		return nil, err
	}
	if _, err := net.Do(ctx, "add", p.Netns(), "IgnoreUnknown=1;LogicalPort="+c.Name); err != nil {
		return nil, fmt.Errorf("attach pod %s: %w", c.Name, err)
	}
	return p, nil
}

// cache is where cnitool, by way of libcni, keeps what it did.
const cache = "/var/lib/cni/results"

// Cached lists what cnitool believes to be attached to the network.
func (net *Network) Cached() ([]string, error) {
	entries, err := os.ReadDir(cache)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("attach network %s: %w", net.Name, err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), net.Name+"-") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Forget removes what cnitool kept, when the lab is about to end with pods in it.
func (net *Network) Forget() error {
	names, err := net.Cached()
	for _, name := range names {
		err = errors.Join(err, os.Remove(filepath.Join(cache, name)))
	}
	return err
}

// Sweep removes what cnitool kept of labs that are gone.
func Sweep() error {
	entries, err := os.ReadDir(cache)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		parts := strings.SplitN(e.Name(), "-", 3)
		if parts[0] != "ovnlab" || len(parts) < 3 {
			continue // somebody else's
		}
		// A lab has a namespace of its own as long as it lives.
		if _, serr := os.Stat(Netns(parts[0] + "-" + parts[1] + "-net")); errors.Is(serr, os.ErrNotExist) {
			err = errors.Join(err, os.Remove(filepath.Join(cache, e.Name())))
		}
	}
	return err
}
