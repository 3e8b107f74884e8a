package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/metrics"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
)

// metricsTime is how long a scrape may take, to be asked for and to be answered.
const metricsTime = 10 * time.Second

// metricsAddress reads tcp:HOST:PORT or unix:PATH.
func metricsAddress(text string) (network, address string, err error) {
	network, address, _ = strings.Cut(text, ":")
	switch network {
	case "tcp":
		if _, _, err := net.SplitHostPort(address); err != nil {
			return "", "", fmt.Errorf("%q: %w", text, err)
		}
	case "unix":
		if !strings.HasPrefix(address, "/") {
			return "", "", fmt.Errorf("%q: not unix:/PATH", text)
		}
	default:
		return "", "", fmt.Errorf("%q: neither tcp:HOST:PORT nor unix:/PATH", text)
	}
	return network, address, nil
}

// ServeMetrics answers Prometheus, if the configuration says where.
func ServeMetrics(c Config, m *monitor.Monitor, log *slog.Logger) ([]Task, error) {
	if c.Metrics == "" {
		return nil, nil
	}
	network, address, err := metricsAddress(c.Metrics)
	if err != nil {
		return nil, fmt.Errorf("daemon metrics: %w", err)
	}
	var l net.Listener
	if network == "unix" {
		l, err = api.Listen(address, -1)
	} else {
		l, err = net.Listen(network, address)
	}
	if err != nil {
		return nil, fmt.Errorf("daemon metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(m))
	server := &http.Server{
		Handler: mux, ReadTimeout: metricsTime, WriteTimeout: metricsTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return []Task{{"metrics", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // a scrape is asked for again
		defer stop()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}}}, nil
}
