package path

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/offloadd/offloadd/internal/netnsdir"
)

// A Netns is a network namespace as a container runtime makes one: there is nothing in it but loopback, which is down.
type Netns struct {
	Name string // with which ip-netns(8) finds it
	Path string
}

// NewNetns makes one, for who holds the lock (Hold). Namespaces that exist at the same time have different numbers. What a killed process leaves Clean removes.
func NewNetns(number int) (Netns, error) {
	n := Netns{Name: fmt.Sprintf("opr%d-start", number)}
	n.Path = filepath.Join(netnsdir.Path, n.Name)
	err := netnsdir.Share()
	if err == nil {
		err = addNetns(n.Path)
	}
	if err != nil {
		return n, errors.Join(fmt.Errorf("netns add %s: %w", n.Name, err), n.Close())
	}
	return n, nil
}

// Close takes its name away. It ends when its last process and socket do.
func (n Netns) Close() error { return removeSpace(n.Path) }
