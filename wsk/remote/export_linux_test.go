package remote

import "time"

// Users are how many users the service knows of.
func (s *Service) Users() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.users)
}

// Sweep looks for what is to be forgotten, as the service does from time to time.
func (s *Service) Sweep(now time.Time) error {
	d, err := openDiag()
	if err != nil {
		return err
	}
	defer d.close()
	return s.sockets.sweep(d, now)
}
