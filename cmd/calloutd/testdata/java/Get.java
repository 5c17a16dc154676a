import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Gets a page twice: by java.net, which waits, and by java.net.http, which does not. */
class Get {
	public static void main(String[] args) throws Exception {
		URI uri = URI.create(args[0]);
		try (InputStream in = uri.toURL().openStream()) {
			System.out.print(new String(in.readAllBytes()));
		}
		HttpRequest request = HttpRequest.newBuilder(uri).build();
		System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
	}
}
