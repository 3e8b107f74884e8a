package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/offload"
	"github.com/offloadd/offloadd/pkg/apply"
)

// transferSize is how many bytes go each way of a path.
const transferSize = 2 << 20

// playOffload shows filters at work on the kernel's datapath: who reaches whom, and then who forwards a transfer.
func playOffload(ctx context.Context, p *page, offloadd, ctl string, log io.Writer) (err error) {
	p.title("offloadd on the kernel's datapath: two nodes, TC filters beside Open vSwitch")
	begin := time.Now()
	r, err := offload.Start(ctx, offload.Options{OffloaddPath: offloadd, Log: log})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			p.text("%s", r.Tails(8))
		}
		err = errors.Join(err, r.Close())
	}()
	p.step("databases, ovn-northd, two nodes, %d workloads; flows and filters are installed", begin, len(r.Pods()))
	p.text("\n%s", r.Picture())
	p.text("")

	begin = time.Now()
	seen, err := r.Scene.Ask(ctx, r.Lab)
	if err != nil {
		return err
	}
	p.step("%d probes", begin, len(seen))
	if wrong := showMatrices(p, r.Scene, seen); wrong > 0 {
		return fmt.Errorf("%d of %d probes have the wrong verdict: see the cells marked with an exclamation mark", wrong, len(seen))
	}

	p.heading(fmt.Sprintf("TCP, %d MiB there and back: who forwarded the packets", transferSize>>20))
	if err := showTransfers(ctx, p, r); err != nil {
		return err
	}
	n := r.Nodes[0]
	status, err := n.Exec(ctx, ctl, "--socket", attach.Socket(n), "status")
	if err != nil {
		return err
	}
	p.heading(n.Name + ": offloadctl status")
	p.text("%s", status)
	return showFilters(ctx, p, n)
}

// showTransfers prints for each path what Open vSwitch saw of a transfer and what filters sent.
func showTransfers(ctx context.Context, p *page, r *offload.Rig) error {
	rows := [][]string{{"path", "from", "to", "time", "Open vSwitch saw", "filters sent", "share of filters"}}
	before, err := r.Count(ctx)
	if err != nil {
		return err
	}
	for _, path := range offload.Paths() {
		took, err := offload.Transfer(ctx, r.Pod(path.From), r.Pod(path.To), false, 5432, transferSize)
		if err != nil {
			return err
		}
		now, err := r.Count(ctx)
		if err != nil {
			return err
		}
		counts := map[string]offload.Counts{}
		for node, c := range now {
			counts[node] = c.Sub(before[node])
		}
		before = now
		for i, e := range [][2]string{{path.From, path.To}, {path.To, path.From}} {
			row := []string{path.Name, e[0], e[1], fmt.Sprintf("%d ms", took.Milliseconds())}
			if i > 0 {
				row[0], row[3] = "", ""
			}
			way := r.Way(counts, e[0], e[1])
			ovs, tc := way.OVS+way.OVSFar, way.TC+way.TCFar
			if tc == 0 {
				return fmt.Errorf("%s: filters have sent nothing from %s to %s", path.Name, e[0], e[1])
			}
			rows = append(rows, append(row, fmt.Sprint(ovs), fmt.Sprint(tc), fmt.Sprintf("%.2f %%", 100*float64(tc)/float64(ovs+tc))))
		}
	}
	p.table(rows)
	p.text("Packets are counted on both nodes of a tunnel; a segment that is not cut yet counts as one packet in Open vSwitch and as its parts in TC.\n" +
		"Open vSwitch saw what the pods asked about their neighbours, and the first packets of each connection, which it lets in or not.")
	return nil
}

// showFilters prints the filters that sent most, as tc(8) shows them.
func showFilters(ctx context.Context, p *page, n *lab.Node) error {
	block := fmt.Sprint(apply.Block)
	out, err := n.Exec(ctx, "tc", "-s", "filter", "show", "block", block)
	if err != nil {
		return err
	}
	best, most := "", 0
	for _, f := range regexp.MustCompile(`(?m)^filter `).Split(out, -1) {
		var packets int
		_, sent, _ := strings.Cut(f, "mirred (Egress Redirect")
		if m := sentPackets.FindStringSubmatch(sent); m != nil {
			_, _ = fmt.Sscan(m[1], &packets)
		}
		if packets > most {
			best, most = f, packets
		}
	}
	if most == 0 {
		return fmt.Errorf("node %s: no filter has sent a packet", n.Name)
	}
	p.heading(fmt.Sprintf("%s: tc -s filter show block %s, of %d filters the one that sent most", n.Name, block, strings.Count(out, "\n  eth_type")))
	p.text("filter %s", best)
	return nil
}

var sentPackets = regexp.MustCompile(`Sent \d+ bytes (\d+) pkt`)
