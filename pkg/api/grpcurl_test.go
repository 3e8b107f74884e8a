package api

import (
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/ports"
)

// grpcurl, which knows nothing but what reflection tells it, can list and call everything.
func TestGRPCurl(t *testing.T) {
	s := serve(t)
	s.feed.Put(plain("pods", "c0", ports.Ready))
	s.chassis = []Chassis{{Name: "n1", Encaps: []Encap{{Type: "geneve", IP: "192.0.2.1"}}}}
	s.flows = []Flow{{Table: 8, Priority: 50, Match: "ip", Actions: "drop", State: FlowInstalled, Counters: &Counters{Packets: 7}}}

	program := filepath.Join(t.TempDir(), "grpcurl")
	build := exec.Command("go", "build", "-modfile=tools/grpcurl/go.mod", "-o", program, "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	socket := "unix://" + s.path
	grpcurl := func(args ...string) (string, error) {
		out, err := exec.Command(program, append([]string{"-plaintext", "-format-error"}, args...)...).CombinedOutput()
		return string(out), err
	}

	services, err := grpcurl(socket, "list")
	if err != nil {
		t.Fatalf("%v\n%s", err, services)
	}
	listed := map[string]bool{}
	for service := range strings.FieldsSeq(services) {
		out, err := grpcurl(socket, "list", service)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for m := range strings.FieldsSeq(out) {
			i := strings.LastIndex(m, ".")
			listed["/"+m[:i]+"/"+m[i+1:]] = true
		}
	}
	for method := range methods {
		if !listed[method] {
			t.Errorf("%s is not listed", method)
		}
	}

	const key = `{"network":"pods","container_id":"c1","ifname":"eth0"}`
	for method, c := range map[string]struct{ request, want string }{
		"offload.v1.PortService/CreatePort":                             {`{"spec":{"key":` + key + `,"netns":"/run/netns/c1","logical_port":"p1","mac":"0a:00:00:00:00:01","addresses":["10.0.0.5/24"]}}`, `"PORT_STATE_READY"`},
		"offload.v1.PortService/DeletePort":                             {`{"key":` + key + `}`, `{`},
		"offload.v1.PortService/GetPort":                                {`{"key":{"network":"pods","container_id":"c0","ifname":"eth0"}}`, `"containerId": "c0"`},
		"offload.v1.PortService/ListPorts":                              {`{"filter":{"states":["PORT_STATE_READY"]}}`, `"containerId": "c0"`},
		"offload.v1.PortService/WatchPorts":                             {`{}`, `"EVENT_TYPE_SYNCED"`},
		"offload.v1.PortService/CheckPort":                              {`{"key":{"network":"pods","container_id":"c0","ifname":"eth0"}}`, `"LINK_MISSING"`},
		"offload.v1.NodeService/GetInfo":                                {`{}`, `"offload.v1"`},
		"offload.v1.NodeService/GetStatus":                              {`{}`, `"offload.bridge"`},
		"offload.v1.NodeService/ListChassis":                            {`{}`, `"192.0.2.1"`},
		"offload.v1.NodeService/ListTunnels":                            {`{}`, `"ovn-a-0"`},
		"offload.v1.NodeService/ListZones":                              {`{}`, `"p1"`},
		"offload.v1.NodeService/Recompute":                              {`{}`, `{`},
		"offload.v1.NodeService/Leave":                                  {`{}`, `{`},
		"offload.v1.FlowService/ListLogicalFlows":                       {`{"table":0,"counters":true}`, `"PIPELINE_EGRESS"`},
		"offload.v1.FlowService/ListFlows":                              {`{"states":["FLOW_STATE_INSTALLED"]}`, `"packets": "7"`},
		"offload.v1.FlowService/Trace":                                  {`{"microflow":"ip4","ct":["trk,new"]}`, `"TRACE_STEP_KIND_OUTPUT"`},
		"offload.v1.FlowService/ListFilters":                            {`{"chain":5,"states":["FILTER_STATE_MISSING"]}`, `"FILTER_KIND_RULE"`},
		"offload.v1.FlowService/ListChains":                             {`{"port":"p1"}`, `"CHAIN_VERDICT_PUNT"`},
		"offload.v1.FlowService/Explain":                                {`{"port":"p1","microflow":"ip4"}`, `"LAYER_ANSWER_PASSES"`},
		"offload.v1.FlowService/DiffFilters":                            {`{}`, `"FILTER_STATE_FOREIGN"`},
		"offload.v1.FlowService/ListPortCounters":                       {`{"port":"p1"}`, `"packets": "9"`},
		"offload.v1.DeviceService/ListDevices":                          {`{}`, `"ESWITCH_MODE_SWITCHDEV"`},
		"offload.v1.DeviceService/GetDevice":                            {`{"device":"p0"}`, `"fw.version"`},
		"offload.v1.DeviceService/ListFunctions":                        {`{"filter":{"kind":"FUNCTION_KIND_VF","states":["FUNCTION_STATE_USED"]}}`, `"0000:03:00.2"`},
		"offload.v1.DeviceService/ListPools":                            {`{}`, `"offloadd.io/fast"`},
		"offload.v1.DeviceService/WatchDevices":                         {`{}`, `"EVENT_TYPE_SYNCED"`},
		"offload.v1.DeviceService/ListLeftovers":                        {`{}`, `"of no port"`},
		"offload.v1.DeviceService/SetEswitch":                           {`{"device":"p0","mode":"ESWITCH_MODE_SWITCHDEV","validate_only":true}`, `"plan"`},
		"offload.v1.DeviceService/SetVFs":                               {`{"device":"p0","count":4,"validate_only":true}`, `"plan"`},
		"offload.v1.DeviceService/CreateFunction":                       {`{"device":"p0","number":7}`, `"pci/0000:03:00.0/9"`},
		"offload.v1.DeviceService/DeleteFunction":                       {`{"port":"pci/0000:03:00.0/2"}`, `"plan"`},
		"offload.v1.DeviceService/ReleaseFunction":                      {`{"port":"pci/0000:03:00.0/2"}`, `"0000:03:00.2"`},
		"offload.v1.ProbeService/ListPathKinds":                         {`{}`, `"flannel-vxlan"`},
		"offload.v1.ProbeService/Run":                                   {`{"spec":{"paths":["metal"],"loads":[{"size":300}],"margin":"0.000001s"}}`, `"udp rr 64 B"`},
		"offload.v1.ProbeService/RunPorts":                              {`{"spec":{"client":"a","server":"b","cold":0}}`, `"udp rr 64 B"`},
		"offload.v1.ProbeService/RunStarts":                             {`{"spec":{"target":"a","ports":["b","c"],"parallel":[1,2]}}`, `"veth, 1 of 2"`},
		"offload.v1.ProbeService/ListRuns":                              {`{}`, `{`},
		"offload.v1.ProbeService/GetRun":                                {`{"id":"x"}`, ``},
		"offload.v1.ProbeService/Clean":                                 {`{}`, `"process 7"`},
		"offload.v1.MonitorService/WatchPairs":                          {`{}`, `"answered": "7"`},
		"grpc.health.v1.Health/Check":                                   {`{"service":"offload.sb"}`, `"NOT_SERVING"`},
		"grpc.health.v1.Health/List":                                    {`{}`, `"offload.sb"`},
		"grpc.health.v1.Health/Watch":                                   {`{"service":"offload.sb"}`, `"NOT_SERVING"`},
		"grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {`{"list_services":""}`, `"offload.v1.PortService"`},
		"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {`{"list_services":""}`, `"offload.v1.PortService"`},
	} {
		delete(listed, "/"+method)
		limit := "10"
		endless := strings.Contains(method, "/Watch")
		if endless {
			limit = "1"
		}
		out, err := grpcurl("-max-time", limit, "-d", c.request, socket, method)
		if (err != nil) != endless || !strings.Contains(out, c.want) {
			t.Errorf("%s %s: %v, want %s:\n%s", method, c.request, err, c.want, out)
		}
	}
	if len(listed) > 0 {
		t.Errorf("not called: %v", slices.Sorted(maps.Keys(listed)))
	}

	// What is wrong arrives with reason, fields and all.
	for args, want := range map[string]string{
		`-max-time 10 -d {"key":{"network":"pods"}} SOCKET offload.v1.PortService/GetPort`: "INVALID_FIELD key.container_id is\\u0020required",
		`-d {} SOCKET offload.v1.NodeService/Recompute`:                                    "DEADLINE_REQUIRED offloadd",
		`-d {"page_token":"x"} SOCKET offload.v1.PortService/ListPorts`:                    "PAGE_TOKEN_INVALID",
	} {
		out, err := grpcurl(strings.Fields(strings.ReplaceAll(args, "SOCKET", socket))...)
		for word := range strings.FieldsSeq(want) {
			if err == nil || !strings.Contains(out, strings.ReplaceAll(word, `\u0020`, " ")) {
				t.Errorf("%s: %v, want %s:\n%s", args, err, word, out)
			}
		}
	}
}
