package daemon

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/monitor"
)

// Metrics are served where the configuration says, until the daemon ends, and nowhere if it says nothing.
func TestServeMetrics(t *testing.T) {
	log := silent()
	m := monitor.New(monitor.Options{Config: monitor.DefaultConfig(), Log: log})
	if tasks, err := ServeMetrics(Config{}, m, log); len(tasks) > 0 || err != nil {
		t.Errorf("%d tasks, %v", len(tasks), err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	for _, at := range []string{"tcp:" + free.Addr().String(), "unix:" + filepath.Join(t.TempDir(), "metrics")} {
		tasks, err := ServeMetrics(Config{Metrics: at}, m, log)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- Run(ctx, log, tasks...) }()
		network, address, _ := strings.Cut(at, ":")
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}}
		c := &http.Client{Transport: transport, Timeout: time.Minute}
		for path, want := range map[string]string{"/metrics": "offloadd_probe_answers_total 0", "/": "404"} {
			r, err := c.Get("http://daemon" + path)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(r.Body)
			_ = r.Body.Close()
			if !strings.Contains(string(text), want) {
				t.Errorf("%s%s: %s", at, path, text)
			}
		}
		transport.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if conn, err := net.Dial(network, address); err == nil {
			_ = conn.Close()
			t.Errorf("%s: somebody listens when the daemon has ended", at)
		}
	}
}

func TestMetricsAddress(t *testing.T) {
	for _, bad := range []string{"tcp:host", "unix:here", "udp:127.0.0.1:1", "127.0.0.1:9476", "tcp"} {
		c := DefaultConfig()
		c.Metrics = bad
		if _, err := c.Check(); err == nil || !strings.Contains(err.Error(), "metrics") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	c := DefaultConfig()
	c.ContinuousProbe.Burst = 0
	if _, err := c.Check(); err == nil || !strings.Contains(err.Error(), "continuous_probe: burst 0") {
		t.Error(err)
	}
}
