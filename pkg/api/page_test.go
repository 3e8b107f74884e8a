package api

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func plain(network, container string, s ports.State) ports.Port {
	return ports.Port{Spec: ports.Spec{Key: ports.Key{Network: network, ContainerID: container, Ifname: "eth0"}, LogicalPort: container}, State: s}
}

// Whatever the size of the pages, together they are the whole list, in order and each port once; ports that come and go
// meanwhile are there or not, but move no others.
func TestPages(t *testing.T) {
	s := serve(t)
	c := offloadv1.NewPortServiceClient(s.dial(t))
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		all, _ := s.feed.All()
		for _, p := range all {
			s.feed.Remove(p.Spec.Key)
		}
		var want []string
		for i := range rnd.IntN(50) {
			p := s.feed.Put(plain("n"+strconv.Itoa(rnd.IntN(3)), strconv.Itoa(i), ports.States()[rnd.IntN(5)]))
			if p.Spec.Key.Network != "n2" && p.State != ports.Failed {
				want = append(want, p.Spec.Key.String())
			}
		}
		filter := &offloadv1.PortFilter{States: []offloadv1.PortState{1, 2, 3, 4}}
		transient := 0
		var got []string
		token := ""
		for {
			r, err := c.ListPorts(soon(t), &offloadv1.ListPortsRequest{Filter: filter, PageSize: int32(1 + rnd.IntN(9)), PageToken: token})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for _, p := range r.GetPorts() {
				if k := portKey(p.GetSpec().GetKey()); k.Network != "n2" {
					got = append(got, k.String())
				}
			}
			if token = r.GetNextPageToken(); token == "" {
				break
			}
			s.feed.Remove(plain("n2", strconv.Itoa(transient), "").Spec.Key)
			transient = rnd.IntN(100)
			s.feed.Put(plain("n2", strconv.Itoa(transient), ports.Ready))
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: got  %v\nwant %v", seed, got, want)
		}
	}
}

func TestPageTokens(t *testing.T) {
	s := serve(t)
	c := offloadv1.NewPortServiceClient(s.dial(t))
	for i := range 3 {
		s.feed.Put(plain("a", strconv.Itoa(i), ports.Ready))
	}
	s.chassis = []Chassis{{Name: "b"}, {Name: "a"}}
	first, err := c.ListPorts(soon(t), &offloadv1.ListPortsRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	chassis, err := offloadv1.NewNodeServiceClient(s.dial(t)).ListChassis(soon(t), &offloadv1.ListChassisRequest{PageSize: 1})
	if err != nil || len(chassis.GetChassis()) != 1 || chassis.GetChassis()[0].GetName() != "a" {
		t.Fatal(chassis, err)
	}
	for name, req := range map[string]*offloadv1.ListPortsRequest{
		"garbage":      {PageToken: "garbage"},
		"not base64":   {PageToken: "!"},
		"too short":    {PageToken: "AAAAAAAAAAA"},
		"other list":   {PageToken: chassis.GetNextPageToken()},
		"other filter": {PageToken: first.GetNextPageToken(), Filter: &offloadv1.PortFilter{Network: "a"}},
		"changed":      {PageToken: "A" + first.GetNextPageToken()[1:]},
	} {
		if _, err := c.ListPorts(soon(t), req); reason.Of(client.Error(err)) != reason.PageTokenInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.ListPorts(soon(t), &offloadv1.ListPortsRequest{PageSize: -1}); reason.Of(client.Error(err)) != reason.InvalidField {
		t.Errorf("a negative size: %v", err)
	}
	r, err := c.ListPorts(soon(t), &offloadv1.ListPortsRequest{PageSize: 1 << 30, PageToken: first.GetNextPageToken()})
	if err != nil || len(r.GetPorts()) != 2 || r.GetNextPageToken() != "" {
		t.Errorf("the rest: %v, %v", r, err)
	}
}

// A page stays below what clients accept, however large its items are.
func TestPageBytes(t *testing.T) {
	s := serve(t)
	c := offloadv1.NewPortServiceClient(s.dial(t))
	labels := map[string]string{}
	for i := range 16 {
		labels[fmt.Sprint(i)] = strings.Repeat("x", 253)
	}
	const n = 1500
	for i := range n {
		p := plain("a", strconv.Itoa(i), ports.Ready)
		p.Spec.Labels = labels
		s.feed.Put(p)
	}
	got, token, pages := 0, "", 0
	for {
		r, err := c.ListPorts(soon(t), &offloadv1.ListPortsRequest{PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(r); size > 2*maxPageBytes {
			t.Errorf("a page of %d bytes", size)
		}
		got += len(r.GetPorts())
		pages++
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if got != n || pages < 5 {
		t.Errorf("%d ports on %d pages", got, pages)
	}
}
