package conformance

// create-handle NAME PROVIDER [flags=]: FwpsRedirectHandleCreate0. The provider
// "-" is none.
func (w *world) createHandle(a *args) error {
	name, err := a.next("a name")
	if err != nil {
		return err
	}
	provider, err := a.next("a provider")
	if err != nil {
		return err
	}
	o, err := a.options("", "flags")
	if err != nil {
		return err
	}
	if _, dup := w.handles[name]; dup {
		return a.l.errorf("there is a handle %q", name)
	}
	if provider == "-" {
		provider = ""
	}
	h, err := w.engine.RedirectHandleCreate(provider, number(o["flags"], 0))
	if err == nil {
		w.handles[name] = h
	}
	w.result(err, "created")
	return nil
}

// destroy-handle NAME: FwpsRedirectHandleDestroy0. The name keeps the number that
// the handle had.
func (w *world) destroyHandle(a *args) error {
	name, err := a.next("a handle")
	if err != nil {
		return err
	}
	h, ok := w.handles[name]
	if !ok {
		return a.l.errorf("there is no handle %q", name)
	}
	w.engine.RedirectHandleDestroy(h)
	_, lives := w.engine.RedirectHandleProvider(h)
	w.printf("= destroyed: %v", !lives)
	return nil
}
