package logical

// This file parses the actions that take lists of options: "name = value, name = {value, value}".

// Codes of the options of put_nd_ra_opts: option types of neighbour discovery (RFC 4861, 4191, 8106), and OVN's own
// numbers for two fields of the message (lib/ovn-l7.h, ND_RA_FLAG_ADDR_MODE and ND_RA_FLAG_PRF).
const (
	RAAddrMode   = 0
	RASLLA       = 1
	RAPrefix     = 3
	RAMTU        = 5
	RARouteInfo  = 24
	RARDNSS      = 25
	RADNSSL      = 31
	RAPreference = 255
)

func raOptions() map[string]OptionDef {
	return map[string]OptionDef{
		"addr_mode":         {RAAddrMode, "str"},
		"router_preference": {RAPreference, "str"},
		"slla":              {RASLLA, "mac"},
		"prefix":            {RAPrefix, "ipv6"},
		"mtu":               {RAMTU, "uint32"},
		"rdnss":             {RARDNSS, "ipv6"},
		"dnssl":             {RADNSSL, "str"},
		"route_info":        {RARouteInfo, "str"},
	}
}

// Codes of the options of the event empty_lb_backends (lib/ovn-l7.h, EMPTY_LB_*).
const (
	EventVIP          = 1
	EventProtocol     = 2
	EventLoadBalancer = 3
)

const emptyLBBackends = "empty_lb_backends"

func eventOptions() map[string]OptionDef {
	return map[string]OptionDef{
		"vip":           {EventVIP, "str"},
		"protocol":      {EventProtocol, "str"},
		"load_balancer": {EventLoadBalancer, "str"},
	}
}

// DHCPOfferIP is the code of the option offerip of put_dhcp_opts.
const DHCPOfferIP = 0

// putOpts parses options up to the closing parenthesis. defs are the known ones, kindName is theirs in messages.
func (p *actionParser) putOpts(kind OptsVerb, dst Operand, defs map[string]OptionDef, kindName string) PutOpts {
	p.check(dst, 1, true)
	return PutOpts{kind, dst, p.optionList(defs, kindName)}
}

func (p *actionParser) optionList(defs map[string]OptionDef, kindName string) []Option {
	var opts []Option
	for !p.Failed() && !p.Match(TokRParen) {
		opts = append(opts, p.option(defs, kindName))
		p.Match(TokComma)
	}
	return opts
}

func (p *actionParser) option(defs map[string]OptionDef, kindName string) Option {
	if p.Tok.Kind != TokID {
		p.SyntaxErrorf("")
		return Option{}
	}
	name := p.Tok.Text
	def, ok := defs[name]
	if !ok {
		p.SyntaxErrorf("expecting %s option name", kindName)
		return Option{}
	}
	p.Next()
	p.Expect(TokEquals)
	o := Option{Name: name, Code: def.Code, Type: def.Type}
	if p.Match(TokLCurly) {
		o.Set = true
		for done := false; !done && !p.Failed(); done = p.Match(TokRCurly) {
			p.optionValue(&o)
			p.Match(TokComma)
		}
	} else {
		p.optionValue(&o)
	}
	switch text := len(o.Strings) > 0; {
	case def.Type == "host_id":
	case text && def.Type != "str" && def.Type != "domains":
		p.Errorf("%s option %s requires numeric value.", kindName, name)
	case !text && (def.Type == "str" || def.Type == "domains"):
		p.Errorf("%s option %s requires string value.", kindName, name)
	}
	return o
}

// optionValue parses one more value of o.
func (p *actionParser) optionValue(o *Option) {
	text := p.Tok.Kind == TokString
	switch {
	case text && len(o.Values) > 0:
		p.SyntaxErrorf("expecting integer")
	case text:
		o.Strings = append(o.Strings, p.str(""))
	case p.Tok.Kind == TokInteger && len(o.Strings) > 0:
		p.SyntaxErrorf("expecting string")
	default:
		o.Values = append(o.Values, p.constant())
	}
}

func (p *actionParser) putDHCPOpts(dst Operand) Action {
	a := p.putOpts(PutDHCPOpts, dst, p.opts.DHCPv4, "DHCPv4")
	if o := a.Option(DHCPOfferIP); o == nil || len(o.Values) == 0 {
		p.Errorf("put_dhcp_opts requires offerip to be specified.")
	}
	return a
}

// Option returns the first option with the given code, or nil.
func (a PutOpts) Option(code uint16) *Option {
	for i := range a.Opts {
		if a.Opts[i].Code == code {
			return &a.Opts[i]
		}
	}
	return nil
}

func (p *actionParser) putNDRAOpts(dst Operand) Action {
	a := p.putOpts(PutNDRAOpts, dst, raOptions(), "IPv6 ND RA")
	stateful := false
	for _, o := range a.Opts {
		if !validRAOption(o) {
			p.Errorf("Invalid value for %q option", o.Name)
		}
		stateful = stateful || o.Code == RAAddrMode && len(o.Strings) == 1 && o.Strings[0] == "dhcpv6_stateful"
	}
	switch {
	case a.Option(RASLLA) == nil:
		p.Errorf("slla option not present")
	case !stateful && a.Option(RAPrefix) == nil:
		p.Errorf("prefix option needs to be set when address mode is slaac/dhcpv6_stateless.")
	}
	p.require("ip6")
	return a
}

// validRAOption reports whether o has one value that suits its option.
func validRAOption(o Option) bool {
	if len(o.Values)+len(o.Strings) != 1 {
		return false
	}
	text, c := "", Constant{}
	if len(o.Strings) == 1 {
		text = o.Strings[0]
	} else {
		c = o.Values[0]
	}
	switch o.Code {
	case RAAddrMode:
		return text == "slaac" || text == "dhcpv6_stateful" || text == "dhcpv6_stateless"
	case RAPreference:
		return text == "MEDIUM" || text == "HIGH" || text == "LOW"
	case RASLLA:
		return c.Format == FormatEthernet && !c.Masked
	case RAPrefix:
		return c.Format == FormatIPv6 && c.Masked
	case RAMTU:
		return c.Format == FormatDecimal
	case RARDNSS:
		return c.Format == FormatIPv6
	}
	return true
}

// triggerEvent parses the arguments of trigger_event.
func (p *actionParser) triggerEvent() Action {
	p.Expect(TokLParen)
	if !p.MatchID("event") {
		p.SyntaxErrorf("Expecting 'event' option")
	}
	p.Expect(TokEquals)
	if p.Tok.Kind == TokString && p.Tok.Text != emptyLBBackends {
		p.SyntaxErrorf("Unknown event '%s'", p.Tok.Text)
	}
	a := TriggerEvent{Event: p.str("Expecting string")}
	p.Match(TokComma)
	a.Opts = p.optionList(eventOptions(), emptyLBBackends)
	for _, o := range a.Opts {
		p.checkEventOption(o)
	}
	return a
}

func (p *actionParser) checkEventOption(o Option) {
	if len(o.Strings) != 1 {
		p.Errorf("Invalid value for %q option", o.Name)
		return
	}
	v := o.Strings[0]
	switch o.Code {
	case EventVIP:
		if _, ok := parseAddrPort(v); !ok {
			p.Errorf("Invalid load balancer VIP '%s'", v)
		}
	case EventProtocol:
		if v != "tcp" && v != "udp" && v != "sctp" {
			p.Errorf("Load balancer protocol '%s' is not 'tcp', 'udp', or 'sctp'", v)
		}
	case EventLoadBalancer:
		if !isUUID(v) {
			p.Errorf("Load balancer '%s' is not a UUID", v)
		}
	}
}

// isUUID reports whether s is a UUID as RFC 4122 writes it.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash && s[i] != '-' || !dash && !isHex(s[i]) {
			return false
		}
	}
	return true
}
