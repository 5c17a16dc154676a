package host

import (
	"slices"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// SessionOptions say what a session is: FWPM_SESSION. The zero value works.
type SessionOptions struct {
	Key  string // Optional: the engine assigns one.
	Name string // Recommended: for people who list the sessions.
	// Dynamic makes every object that the session adds go when it ends
	// (FWPM_SESSION_FLAG_DYNAMIC).
	Dynamic bool
	// TxnWaitTimeout is how long a call waits for another session's transaction.
	// Optional: DefaultTxnWaitTimeout.
	TxnWaitTimeout time.Duration
	// KernelMode lets a transaction hold the lock for ever, not for an hour
	// (BFE-TXN-03).
	KernelMode bool
}

// A Session changes the policy object by object: an engine handle. Outside a
// transaction each call is its own (BFE-TXN-02). It is safe for concurrent use,
// but has one transaction at a time. Close must be called.
//
// Errors are *fwpm.ObjectError around an fwp.Error. Every call can be ErrSessionAborted
// after Close, ErrTimeout when another session's transaction takes longer than
// TxnWaitTimeout, and ErrTxnAborted when its own was taken away (BFE-TXN-03); one that
// changes something is ErrIncompatibleTxn in a read-only transaction. A Delete is the
// kind's ErrNotFound, such as ErrFilterNotFound, ErrBuiltinObject, ErrInUse while
// something refers to the object, and ErrWrongSession for a dynamic one of another
// session (BFE-OBJ-04); an Add is ErrAlreadyExists, or what is wrong with the object.
// A call that fails changes nothing.
type Session struct {
	e    *Engine
	o    SessionOptions
	done chan struct{} // closed by Close
	once sync.Once

	mu  sync.Mutex // one call at a time
	txn *txn       // the one that Begin began
}

// Open is FwpmEngineOpen0. It is fwp.ErrAlreadyExists for the key of a session that is
// open (BFE-SES-01), and fwp.ErrInvalidParameter for a negative TxnWaitTimeout.
func (e *Engine) Open(o SessionOptions) (*Session, error) {
	if o.Key == "" {
		o.Key = newKey()
	}
	if o.TxnWaitTimeout == 0 {
		o.TxnWaitTimeout = DefaultTxnWaitTimeout
	}
	s := &Session{e: e, o: o, done: make(chan struct{})}
	if o.TxnWaitTimeout < 0 {
		return nil, s.fail(fwp.ErrInvalidParameter)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sessions[o.Key] != nil {
		return nil, s.fail(fwp.ErrAlreadyExists) // BFE-SES-01
	}
	e.sessions[o.Key] = s
	return s, nil
}

// Key is what names the session among those that are open.
func (s *Session) Key() string { return s.o.Key }

func (s *Session) fail(err error) error {
	if err == nil {
		return nil
	}
	return &fwpm.ObjectError{Kind: "session", ID: s.o.Key, Err: err}
}

// Close is FwpmEngineClose0: it ends the session's subscriptions, aborts its
// transaction and deletes its dynamic objects, all at once (BFE-SES-02, SC-109).
// It waits for another session's transaction for the session's TxnWaitTimeout;
// after that the objects go when that transaction ends. Other calls fail then
// with fwp.ErrSessionAborted. Later Closes do nothing.
func (s *Session) Close() {
	s.once.Do(s.close)
	s.e.outbox.deliver()
}

func (s *Session) close() {
	close(s.done)
	s.mu.Lock()
	t := s.txn
	s.txn = nil
	s.mu.Unlock()
	e := s.e
	if t != nil {
		t.abort()
		e.end(t)
	}
	e.mu.Lock()
	delete(e.sessions, s.o.Key)
	e.changes = slices.DeleteFunc(e.changes, func(c *changeSubscriber) bool { return c.s == s })
	e.unlisten(func(n *netSubscriber) bool { return n.s == s })
	e.mu.Unlock()
	if !s.o.Dynamic {
		return
	}
	e.lock.orphan(s)
	if t, err := e.begin(s.o.TxnWaitTimeout, nil); err == nil {
		e.end(t)
		return
	}
	e.reap() // It may have become free since.
}

// ended reports whether Close was called.
func (s *Session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// enter begins a call and returns the session's transaction, nil if it has none.
// The caller holds s.mu and, if there is no error, calls leave.
func (s *Session) enter() (*txn, error) {
	switch {
	case s.ended():
		return nil, s.fail(fwp.ErrSessionAborted)
	case s.txn == nil || s.txn.readOnly:
		return s.txn, nil
	}
	if err := s.e.lock.enter(s.txn); err != nil {
		s.txn.abort()
		s.txn = nil
		s.e.reap()
		return nil, s.fail(err)
	}
	return s.txn, nil
}

func (s *Session) leave() {
	if s.txn != nil && !s.txn.readOnly {
		s.e.lock.leave()
	}
}

// call is one call of the session. t is its transaction, nil if it has none.
func (s *Session) call(do func(t *txn) error) error {
	defer s.e.outbox.deliver()
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.enter()
	if err != nil {
		return err
	}
	defer s.leave()
	return do(t)
}

// Begin is FwpmTransactionBegin0. It waits for the transaction that another
// session has under way; a read-only one does not. It is fwp.ErrTxnInProgress for a
// second one, and fwp.ErrInvalidFlags for flags that there are not.
func (s *Session) Begin(flags TxnFlags) error {
	return s.call(func(t *txn) (err error) {
		switch {
		case t != nil:
			return s.fail(fwp.ErrTxnInProgress)
		case flags&^TxnReadOnly != 0:
			return s.fail(fwp.ErrInvalidFlags)
		case flags == TxnReadOnly:
			s.txn = &txn{e: s.e, by: s, readOnly: true, base: s.e.live.Load().objects}
			return nil
		}
		limit := txnLimit
		if s.o.KernelMode {
			limit = 0
		}
		if t, err = s.e.beginLimited(s.o.TxnWaitTimeout, limit, s); err != nil {
			return s.fail(err)
		}
		s.txn = t
		return nil
	})
}

// Commit is FwpmTransactionCommit0: all changes of the transaction go live, from
// one classification to the next. Without a transaction it is fwp.ErrNoTxnInProgress.
func (s *Session) Commit() error { return s.finish((*txn).commit) }

// Abort is FwpmTransactionAbort0: nothing of the transaction was ever live.
func (s *Session) Abort() error {
	return s.finish(func(t *txn) error { t.abort(); return nil })
}

func (s *Session) finish(how func(*txn) error) error {
	defer s.e.outbox.deliver()
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.enter()
	switch {
	case err != nil:
		return err
	case t == nil:
		return s.fail(fwp.ErrNoTxnInProgress)
	}
	s.txn = nil
	defer s.e.end(t)
	return s.fail(how(t))
}

// write changes something in the session's transaction, or in one of its own.
func (s *Session) write(change func(*txn) error) error {
	return s.call(func(t *txn) error {
		switch {
		case t == nil:
			return s.implicit(change)
		case t.readOnly:
			return s.fail(fwp.ErrIncompatibleTxn) // BFE-TXN-02
		}
		return change(t)
	})
}

// implicit is the transaction of one call. It is never aborted by others.
func (s *Session) implicit(change func(*txn) error) error {
	t, err := s.e.begin(s.o.TxnWaitTimeout, s)
	if err != nil {
		return s.fail(err)
	}
	defer s.e.end(t)
	if err := change(t); err != nil {
		t.abort()
		return err
	}
	return t.commit()
}

// view shows what the session sees: its transaction's objects, else the live ones.
func (s *Session) view(show func(w *objects)) error {
	return s.call(func(t *txn) error {
		if t != nil {
			show(t.view())
		} else {
			show(s.e.live.Load().objects)
		}
		return nil
	})
}
