package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/simnic"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const (
	maxParallel = 32  // two VFs for each, of the NIC's 128
	maxWarm     = 400 // of the NIC's 512 SFs
)

// openNIC makes the NIC have VFs: as many for the daemon as for host-device.
func openNIC(ctx context.Context, o options) error {
	return o.nic.Open(ctx, 2*o.parallel)
}

// poolsYAML has the first half of the VFs in a pool, and so many SFs in advance in another, which may have as many more as there are pods at
// a time, and those that are made for the next.
func poolsYAML(o options, warm int) string {
	return fmt.Sprintf(`
pools:
- {name: vfs, device: "%[1]s", kind: vf, vfs: 0-%[2]d}
- {name: sfs, device: "%[1]s", kind: sf, min_warm: %[3]d, max_warm: %[3]d, max: %[4]d}
`, o.nic.Handle(), o.parallel-1, warm, mostWarm(o.warm)+2*o.parallel)
}

func mostWarm(warm []int) int { return slices.Max(append(slices.Clone(warm), 0)) }

// devices returns the way of VFs, and makes that of host-device, which is told which network device a pod gets: each pod at a time has its
// own network.
func (b *bench) devices() (way, error) {
	b.hostDevice = way{name: "host-device"}
	for i := range b.parallel {
		dev, err := b.nic.VFNetdev(b.parallel + i)
		if err != nil {
			return way{}, err
		}
		net, err := b.network(fmt.Sprintf("host-device%d", i), fmt.Sprintf(`{"type":"host-device","device":%q,"ipam":%s}`, dev, b.ipam(10)))
		if err != nil {
			return way{}, err
		}
		b.hostDevice.networks = append(b.hostDevice.networks, net)
	}
	return b.ours("vf", "vfs", "vf", b.hostDevice.name)
}

// subfunctions measures SFs from pools of all sizes, each with all delays. Pools are filled without delay.
func (b *bench) subfunctions(ctx context.Context) error {
	sf, err := b.ours("sf", "sfs", "sf", b.hostDevice.name)
	if err != nil {
		return err
	}
	for _, warm := range b.warm {
		if err := b.restart(ctx, warm); err != nil {
			return err
		}
		settled := func(ctx context.Context) error { return b.settled(ctx, warm) }
		if err := settled(ctx); err != nil {
			return err
		}
		if warm == mostWarm(b.warm) {
			if err := b.idle(ctx, fmt.Sprintf("with %d SFs in advance", warm)); err != nil {
				return err
			}
		}
		delays := b.delays
		if b.nic.Real() {
			delays = []time.Duration{0}
		}
		for _, delay := range delays {
			title, err := b.delay(delay)
			if err != nil {
				return err
			}
			t := &trial{title: fmt.Sprintf("SFs, %d in advance, %s", warm, title), ways: []way{sf, b.hostDevice}}
			if err := b.try(ctx, t, settled); err != nil {
				return fmt.Errorf("%s: %w", t.title, err)
			}
		}
		if _, err := b.delay(0); err != nil {
			return err
		}
	}
	return nil
}

// delay makes the simulated NIC take that long for an SF, and says so in words. Others take as long as they take.
func (b *bench) delay(d time.Duration) (string, error) {
	if b.nic.Real() {
		return "made as fast as the NIC does", nil
	}
	return fmt.Sprintf("made in %d ms", d.Milliseconds()), b.nic.Set(simnic.SFDelay, int(d.Milliseconds()))
}

// restart starts the daemon again, with another number of SFs in advance.
func (b *bench) restart(ctx context.Context, warm int) error {
	err := b.watch.close()
	b.watch = nil
	if err := errors.Join(err, b.node.StopAgent(syscall.SIGTERM)); err != nil {
		return err
	}
	b.node.Configure(poolsYAML(b.options, warm))
	if err := b.node.StartAgent(lab.Offloadd); err != nil {
		return err
	}
	b.watch, err = newWatch(ctx, b.node)
	return err
}

// settled waits until the pool of SFs has as many as it should have in advance, and nothing is done to any.
func (b *bench) settled(ctx context.Context, warm int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not in five minutes"))
	defer cancel()
	devices := offloadv1.NewDeviceServiceClient(b.watch.conn)
	for {
		list, err := devices.ListPools(ctx, &offloadv1.ListPoolsRequest{})
		if err != nil {
			return fmt.Errorf("list of pools: %w", err)
		}
		var counts map[string]uint32
		for _, p := range list.GetPools() {
			if p.GetName() == "sfs" {
				counts = p.GetCounts()
			}
		}
		total := uint32(0)
		for _, n := range counts {
			total += n
		}
		if total == uint32(warm) && counts["FREE"] == total {
			return nil
		}
		if n := counts["QUARANTINED"]; n > 0 {
			return fmt.Errorf("%d SFs are quarantined: %v", n, counts)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d SFs in advance: %w: there are %v", warm, context.Cause(ctx), counts)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
