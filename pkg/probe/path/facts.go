package path

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// readFacts reads what the kernel has of the path, after packets have passed it: of the ends, and of each namespace what takes part in
// forwarding.
func (s *site) readFacts() error {
	var stamps [2]unix.EthtoolTsInfo
	for i, e := range []struct {
		side string
		end  End
	}{{"client", s.path.Client}, {"server", s.path.Server}} {
		sp := s.end(e.end)
		link, err := sp.byName(e.end.Device)
		if err != nil {
			return err
		}
		kind := link.Type()
		if e.end.Device == "lo" {
			kind = "loopback" // it has no kind of its own
		}
		s.fact(e.side+" device", kind)
		s.fact(e.side+" MTU", strconv.Itoa(link.Attrs().MTU))
		offloads, err := sp.offloads(e.end.Device)
		if err != nil {
			return err
		}
		s.fact(e.side+" offloads", offloads)
		if stamps[i], err = sp.stamping(e.end.Device); err != nil {
			return err
		}
	}
	var whose string
	s.path.NICClock, whose = oneClock(stamps[0], stamps[1])
	s.fact("timestamps", whose)
	for _, sp := range slices.SortedFunc(maps.Values(s.spaces), func(a, b *space) int { return cmp.Compare(a.name, b.name) }) {
		_, role, _ := strings.Cut(sp.name, "-")
		rules, err := sp.countRules()
		// On a kernel without nf_tables there are none.
		if err != nil && !errors.Is(err, unix.EPROTONOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("netns %s: nft list ruleset: %w", sp.name, err)
		}
		if rules > 0 {
			s.fact(role+" rules", strconv.Itoa(rules))
		}
		connections, err := sp.readSysctl("net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		if connections != "" && connections != "0" {
			s.fact(role+" conntrack", "on")
		}
		if _, err := sp.link.LinkByName(bridgeDevice); err != nil {
			continue // no bridge whose packets netfilter could see
		}
		calls, err := sp.readSysctl("net/bridge/bridge-nf-call-iptables")
		if err != nil {
			return err
		}
		if calls != "" {
			s.fact(role+" bridge-nf-call-iptables", calls)
		}
	}
	return nil
}

// offloadNames are what ethtool(8) calls the features that decide how a packet is cut and checked.
var offloadNames = []struct{ feature, name string }{
	{"rx-checksum", "rx"},
	{"tx-checksum-ip-generic", "tx"},
	{"tx-tcp-segmentation", "tso"},
	{"tx-generic-segmentation", "gso"},
	{"rx-gro", "gro"},
	{"tx-udp-segmentation", "uso"},
}

// offloads are those that are on.
func (s *space) offloads(dev string) (string, error) {
	var on []string
	err := s.do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		features, err := e.Features(dev)
		for _, o := range offloadNames {
			if features[o.feature] {
				on = append(on, o.name)
			}
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("netns %s: ethtool -k %s: %w", s.name, dev, err)
	}
	return strings.Join(on, " "), nil
}

// readSysctl reads what is below /proc/sys; empty if it is not there.
func (s *space) readSysctl(name string) (string, error) {
	var value string
	err := s.do(func() error {
		b, err := os.ReadFile("/proc/sys/" + name)
		value = string(bytes.TrimSpace(b))
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return value, err
}
