from app import create_app

application = create_app("wsgi.py")
