package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
)

// NewDevices returns the inventory of the node's NICs and the task that keeps it. Both are nothing on a kernel without devlink, on which no
// pool can be configured.
func NewDevices(config Config, log *slog.Logger) (*device.Inventory, []Task, error) {
	conn, err := devlink.Dial(devlink.DialOptions{})
	switch {
	case err != nil && len(config.Pools) > 0:
		return nil, nil, fmt.Errorf("daemon config pools: %w", err)
	case err != nil:
		log.Info("no NICs", "err", err)
		return nil, nil, nil
	}
	devices := device.New(device.Options{Devlink: conn, Log: log, Pools: config.Pools, Memory: filepath.Join(config.RunDir, "quarantine.json")})
	return devices, []Task{{"devices", func(ctx context.Context) error {
		defer func() { _ = conn.Close() }()
		return devices.Run(ctx)
	}}}, nil
}
