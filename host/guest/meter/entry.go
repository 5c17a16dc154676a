package meter

// Entry is the name of the function that Rewrite adds for an exported function
// that the host calls often. It takes the budget before the function's own
// parameters and returns what is left of it after the function's own results:
// the host need not set and read the global.
func Entry(name string) string { return Prefix + "enter_" + name }

// addEntry adds the entry of an exported function.
func (p *fuel) addEntry(name string) error {
	index, ok := p.m.functions[name]
	if !ok {
		return &Error{Msg: "no function " + name + " is exported"}
	}
	s := p.m.types[p.m.funcs[index]]
	t := append(uleb([]byte{0x60}, uint32(len(s.params)+1)), typeI32)
	t = append(uleb(append(t, s.params...), uint32(len(s.results)+1)), s.results...)
	b := []byte{0, opLocalGet, 0}
	b = uleb(append(b, opGlobalSet), p.budget)
	for k := range s.params {
		b = uleb(append(b, opLocalGet), uint32(k+1))
	}
	b = uleb(append(uleb(append(b, opCall), index), opGlobalGet), p.budget)
	entry := p.m.addFunc(append(t, typeI32), append(b, opEnd))
	p.m.addExport(Entry(name), kindFunc, entry)
	p.m.names = append(p.m.names, functionName{entry, []byte(Entry(name))}) // The last, so in order.
	return nil
}
