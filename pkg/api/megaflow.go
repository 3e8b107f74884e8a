package api

// A Megaflow is an entry of Open vSwitch's datapath.
type Megaflow struct {
	UFID     string // "": it has none
	Device   string // by which its packets come
	Recirc   uint32 // 0: they have just arrived
	Match    string // as dpctl(8) prints it
	Actions  string
	Layer    Layer // that carries it out
	Reason   string
	Used     string
	Counters Counters // without Duration
}
